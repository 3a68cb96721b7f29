"""coordd-agent: registers and checks one host's services, and answers DNS for what that host uses."""
