"""Steps in which something breaks: the leader, a service, a whole host."""

import time
from typing import Any

from coordd_cli.demo.changes import leader_of, peers_of
from coordd_cli.demo.stage import Stage
from coordd_cli.processes import wait_for

__all__ = ["kill_agent", "kill_leader", "restart_server", "show_survival", "stop_http"]

CATCH_UP_SECONDS = 10.0
DROP_SECONDS = 10.0
CRITICAL_SECONDS = 5.0


def kill_leader(stage: Stage) -> None:
    name = leader_of(peers_of(stage))
    host = stage.servers[name]
    stage.run(*stage.as_token(), "kv", "put", "survivor", "before")
    stage.kill(host)
    started = time.monotonic()
    written = stage.run(*stage.as_token(), "kv", "put", "survivor", "after", "--output", "json")
    stage.show(f"the next write was acknowledged {time.monotonic() - started:.2f} s after the kill")
    stage.notes["killed"] = name
    stage.expect(written.json()["version"] == 2, "the write took effect, once")


def show_survival(stage: Stage) -> None:
    asked = stage.as_token()
    locks = stage.run(*asked, "lock", "list", "--output", "json").json()
    held: dict[str, Any] = next((one for one in locks if one["name"] == "backup-long"), {})
    value = stage.run(*asked, "kv", "get", "backup/done").output
    facts = {
        "lock": held.get("token") == stage.notes["token"] and stage.notes["holder"].poll() is None,
        "key": value == "yesterday",
    }
    if stage.agents["h2"].daemon is not None:
        facts["service"] = bool(stage.ask_dns("h2", "web.service.coord", "A").answers)
    stage.show(", ".join(f"{what}: {'there' if there else 'LOST'}" for what, there in facts.items()))
    stage.expect(all(facts.values()), "lock, key and service are what they were")


def restart_server(stage: Stage) -> None:
    host = stage.servers[stage.notes["killed"]]
    stage.start_server(host)
    stage.wait_ready(host.daemon)

    def caught_up(peers: list[dict[str, Any]]) -> bool | None:
        matches = {peer["name"]: peer["match"] for peer in peers if peer["match"]}
        return True if matches.get(host.name, 0) >= max(matches.values(), default=1) else None

    asked = [*stage.as_token(), "operator", "raft", "list-peers"]
    stage.poll(f"{host.name} catching up", caught_up, CATCH_UP_SECONDS, *asked)
    stale = ["--server", stage.address_of(host), *stage.as_token(), "--consistency", "stale"]
    value = stage.run(*stale, "kv", "get", "survivor").output
    stage.show(f"{host.name} itself says of the key written while it was away: {value!r}")
    stage.expect(value == "after", f"{host.name} has what was written without it")


def stop_http(stage: Stage) -> None:
    stage.notes["http"].end()
    seconds = until_dropped(stage, "web.service.coord", CRITICAL_SECONDS)
    api = stage.ask_dns("h2", "api.service.coord", "A")
    stage.show(f"h2's DNS dropped web after {seconds:.2f} s")
    stage.expect(bool(api.answers), "web is gone from h2's DNS, and api on the same host is not")


def kill_agent(stage: Stage) -> None:
    stage.kill(stage.agents["h1"])
    seconds = until_dropped(stage, "api.service.coord", 2 * DROP_SECONDS)
    stage.show(f"h2's DNS dropped api after {seconds:.2f} s")
    stage.expect(seconds <= DROP_SECONDS, f"h2's DNS dropped the services of h1 within {DROP_SECONDS:g} s")


def until_dropped(stage: Stage, name: str, timeout: float) -> float:
    """Seconds until h2's DNS no longer answers the name."""
    started = time.monotonic()
    stage.ask_dns("h2", name, "A")
    wait_for(
        f"h2's DNS dropping {name}", lambda: not stage.ask_dns("h2", name, "A", printed=False).answers, timeout, 0.05
    )
    return time.monotonic() - started
