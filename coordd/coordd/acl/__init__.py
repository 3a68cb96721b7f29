"""Who may do what: rules of policies and the authorizer made from them. Pure; used by servers and agents."""
