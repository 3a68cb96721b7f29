"""Policies, tokens, and the authorizer that belongs to a token's secret.

Of a secret only its SHA-256 is known here. Before `AclBootstrap` everything is allowed; it makes the first management
token and works once. The last management token and a policy in use can't be deleted. What the token with accessor
"anonymous" may do holds for everyone who shows no secret.
"""

from hashlib import sha256

from coordd.acl.authorizer import ALLOW_ALL, Authorizer
from coordd.acl.rules import Rules, parse_rules
from coordd.errors import InvalidError
from coordd.messages.command import AclBootstrap, AclDeletePolicy, AclDeleteToken, AclPutPolicy, AclPutToken, Done
from coordd.state.limits import Refused, check_name, check_text
from coordd.state.rows import Rows, from_json, to_json
from coordd.state.schema import PolicyRow, TokenRow

__all__ = ["ANONYMOUS", "Authorizers", "bootstrap", "delete_policy", "delete_token", "put_policy", "put_token"]

ANONYMOUS = "anonymous"
"""Accessor of the token that those without a secret use."""
_HASH_BYTES = 32
_CACHED_TOKENS = 1_024


def bootstrap(rows: Rows, command: AclBootstrap) -> Done:
    if rows.acl_enabled:
        raise Refused("denied", f"ACLs were bootstrapped at index {rows.acl_enabled}; use the token made then")
    check_name("accessor", command.accessor, strict=True)
    if command.accessor == ANONYMOUS:
        raise Refused("invalid", f"{ANONYMOUS!a} is the accessor of those without a token; draw another one")
    _check_secret(rows, command.accessor, command.secret_hash)
    if rows.tokens.get(command.accessor) is not None:
        raise Refused("conflict", f"token {command.accessor!a} exists already; draw another accessor")
    rows.tokens.put(_token(rows, AclPutToken(command.accessor, command.secret_hash, (), "Bootstrap Token", True)))
    rows.acl_enabled = rows.index
    rows.touch("acl")
    return Done(rows.index)


def put_policy(rows: Rows, command: AclPutPolicy) -> Done:
    check_name("policy name", command.name, strict=True)
    check_text("description", command.description, 1024)
    try:
        parse_rules(command.rules)
    except InvalidError as error:
        ours = error.__cause__ is None  # else a library's words, which change with its version
        raise Refused("invalid", error.text if ours else "the rules are no JSON of the expected form") from error
    old = rows.policies.get(command.name)
    created = old.create_index if old is not None else rows.index
    rows.policies.put(PolicyRow(command.name, command.description, command.rules, created, rows.index))
    rows.touch("acl")
    return Done(rows.index)


def delete_policy(rows: Rows, command: AclDeletePolicy) -> Done:
    if rows.policies.get(command.name) is None:
        return Done(rows.index)
    for token in rows.tokens.select("ORDER BY accessor"):
        if command.name in from_json(token.policies):
            raise Refused("conflict", f"token {token.accessor} uses policy {command.name!a}; change that token first")
    rows.policies.delete(command.name)
    rows.touch("acl")
    return Done(rows.index)


def put_token(rows: Rows, command: AclPutToken) -> Done:
    check_name("accessor", command.accessor, strict=True)
    check_text("description", command.description, 1024)
    if len(command.policies) > rows.limits.policies_for_one_token:
        raise Refused("invalid", f"a token has at most {rows.limits.policies_for_one_token} policies")
    for policy in command.policies:
        if rows.policies.get(policy) is None:
            raise Refused("invalid", f"there is no policy {policy[:64]!a}; create it first")
    if command.management and not rows.acl_enabled:
        raise Refused(
            "denied", "the first management token is made by `acl bootstrap`, so that none is there unnoticed"
        )
    old = rows.tokens.get(command.accessor)
    if command.accessor == ANONYMOUS:
        if command.secret_hash or command.management:
            raise Refused("invalid", "the anonymous token has no secret and can't be a management token")
    elif old is None or command.secret_hash:
        _check_secret(rows, command.accessor, command.secret_hash)
    if old is not None and old.management and not command.management:
        _check_not_last(rows, old)
    rows.tokens.put(_token(rows, command))
    rows.touch("acl")
    return Done(rows.index)


def delete_token(rows: Rows, command: AclDeleteToken) -> Done:
    old = rows.tokens.get(command.accessor)
    if old is None:
        return Done(rows.index)
    if old.management:
        _check_not_last(rows, old)
    rows.tokens.delete(command.accessor)
    rows.touch("acl")
    return Done(rows.index)


def _token(rows: Rows, command: AclPutToken) -> TokenRow:
    old = rows.tokens.get(command.accessor)
    secret = command.secret_hash.hex() or (old.secret_sha256 if old is not None else "")
    return TokenRow(
        accessor=command.accessor,
        secret_sha256=secret,
        description=command.description,
        policies=to_json(sorted(set(command.policies))),
        management=int(command.management),
        create_index=old.create_index if old is not None else rows.index,
        modify_index=rows.index,
    )


def _check_secret(rows: Rows, accessor: str, secret_hash: bytes) -> None:
    if len(secret_hash) != _HASH_BYTES:
        raise Refused("invalid", f"a token's secret is given by its SHA-256, {_HASH_BYTES} bytes")
    same = rows.tokens.select("WHERE secret_sha256 <> '' AND secret_sha256 = ?", (secret_hash.hex(),))
    if same and same[0].accessor != accessor:
        raise Refused("conflict", "another token has this secret; draw a new one")


def _check_not_last(rows: Rows, token: TokenRow) -> None:
    others = rows.tokens.scalar("count(*)", "WHERE management = 1 AND accessor <> ?", (token.accessor,))
    if rows.acl_enabled and not others:
        raise Refused("conflict", "this is the last management token; create another one first")


class Authorizers:
    """Authorizers by secret, made when first asked for and dropped when any policy or token changes. Bounded."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._known: dict[str, tuple[str, Authorizer]] = {}

    def of(self, secret: str) -> tuple[str, Authorizer] | None:
        """Accessor and authorizer of the token with that secret; "" for nobody in particular. None: unknown secret."""
        if not self._rows.acl_enabled:
            return "", ALLOW_ALL
        hashed = sha256(secret.encode()).hexdigest() if secret else ""
        known = self._known.get(hashed)
        if known is None:
            known = self._make(hashed)
            if known is None:
                return None
            if len(self._known) >= _CACHED_TOKENS:
                del self._known[next(iter(self._known))]
            self._known[hashed] = known
        return known

    def forget(self) -> None:
        self._known.clear()

    def _make(self, hashed: str) -> tuple[str, Authorizer] | None:
        if hashed:
            tokens = self._rows.tokens.select("WHERE secret_sha256 <> '' AND secret_sha256 = ?", (hashed,))
            token = tokens[0] if tokens else None
        else:
            token = self._rows.tokens.get(ANONYMOUS)
        if token is None:
            return None if hashed else ("", Authorizer())
        accessor = "" if token.accessor == ANONYMOUS else token.accessor
        return accessor, Authorizer(rules_of(self._rows, token), management=bool(token.management))


def rules_texts(rows: Rows, token: TokenRow) -> tuple[str, ...]:
    """Rules of the token's policies, in the order of the policies' names."""
    policies = [rows.policies.get(name) for name in from_json(token.policies)]
    return tuple(policy.rules for policy in policies if policy is not None)


def rules_of(rows: Rows, token: TokenRow) -> list[Rules]:
    return [parse_rules(text) for text in rules_texts(rows, token)]
