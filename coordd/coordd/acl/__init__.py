"""Who may do what: rules and the pure authorizer that servers and agents share."""
