"""Tests of coordd.acl."""
