"""Nodes, services and checks: what is stored, who is woken, what is refused."""

import msgspec
import pytest

from coordd.errors import InvariantError
from coordd.messages.command import (
    CheckDefinition,
    Deregister,
    NodeStatus,
    Register,
    ServiceDefinition,
    SetNodeStatus,
)
from coordd.messages.query import (
    Catalog,
    Checks,
    Health,
    ListChecks,
    ListNodes,
    ListServices,
    NodeCatalog,
    NodeInfo,
    Nodes,
    ServiceHealth,
    ServiceNames,
)
from coordd.state.limits import Limits
from coordd.state.topics import Topic
from tests.state.world import World

WEB = ServiceDefinition(
    "web1", "web", ("a", "b"), "10.1.1.1", 80, {"v": "2"}, {"wan": ("1.1.1.1", 8080)}, 5, 0, enable_tag_override=True
)
ALIVE = CheckDefinition("alive", "Web answers", "passing", "web1", "ok", "notes", "http", "10s", "1s")
DISK = CheckDefinition("disk", "Disk", "passing")


def health(world: World, service: str = "web") -> Health:
    value = world.value(ServiceHealth(service))
    assert isinstance(value, Health)
    return value


def catalog(world: World, node: str = "n1") -> Catalog:
    value = world.value(NodeCatalog(node))
    assert isinstance(value, Catalog)
    return value


def test_register_and_read_back(world: World) -> None:
    world.done(Register("n1", "10.0.0.1", "id-1", {"rack": "7"}, {"lan": "10.0.0.1"}, (WEB,), (ALIVE, DISK)))
    (entry,) = health(world).entries
    assert entry.node == NodeInfo("n1", "10.0.0.1", "id-1", {"rack": "7"}, {"lan": "10.0.0.1"}, 1, 1)
    assert entry.service.service == WEB
    assert [check.check for check in entry.checks] == [ALIVE, DISK]
    assert (entry.checks[0].service_name, entry.checks[0].service_tags) == ("web", ("a", "b"))
    assert (entry.checks[1].service_name, entry.checks[1].service_tags) == ("", ())
    assert catalog(world).entries[0].node == entry.node
    assert world.value(ListServices()) == ServiceNames((("web", ("a", "b")),))


def test_the_same_registration_again_changes_nothing(world: World) -> None:
    command = Register("n1", "10.0.0.1", "id-1", {"a": "1", "b": "2"}, {}, (WEB,), (ALIVE,))
    world.done(command)
    before = world.content()
    world.done(Register("n1", "10.0.0.1", "id-1", {"b": "2", "a": "1"}, {}, (WEB,), (ALIVE,)))
    assert world.content() == before
    assert world.machine.changes == set()


def test_what_is_not_named_stays(world: World) -> None:
    world.done(Register("n1", "10.0.0.1", services=(WEB,), checks=(ALIVE, DISK)))
    world.done(Register("n1", "10.0.0.2", meta={"x": "y"}))
    (entry,) = health(world).entries
    assert (entry.node.address, entry.node.create_index, entry.node.modify_index) == ("10.0.0.2", 1, 2)
    assert len(entry.checks) == 2
    world.done(Register("n1", "", services=(ServiceDefinition("db1", "db"),), skip_node_update=True))
    assert catalog(world).entries[0].node == entry.node
    assert len(catalog(world).entries[0].services) == 2


@pytest.mark.parametrize(
    ("command", "topics"),
    [
        (Register("n1", "10.9.9.9"), {("nodes",), ("node", "n1"), ("service", "web"), ("service", "db")}),
        (
            Register("n1", "10.0.0.1", checks=(DISK,)),
            {("checks",), ("node", "n1"), ("service", "web"), ("service", "db")},
        ),
        (Register("n1", "10.0.0.1", checks=(ALIVE,)), {("checks",), ("node", "n1"), ("service", "web")}),
        (Register("n1", "10.0.0.1", services=(WEB,)), {("services",), ("node", "n1"), ("service", "web")}),
        (
            Register("n1", "10.0.0.1", services=(ServiceDefinition("web1", "www"),)),
            {("services",), ("node", "n1"), ("service", "web"), ("service", "www")},
        ),
        (
            Register("n1", "10.0.0.1", services=(ServiceDefinition("web1", "web", port=81),)),
            {("node", "n1"), ("service", "web")},
        ),
        (Deregister("n1", service_id="web1"), {("services",), ("node", "n1"), ("service", "web")}),
        (Deregister("n1", check_id="nope"), set()),
        (Deregister("n1", service_id="nope"), set()),
        (Deregister("nope"), set()),
        (
            SetNodeStatus(1, (NodeStatus("n1", "critical"), NodeStatus("nope", "critical"))),
            {("checks",), ("node", "n1"), ("service", "web"), ("service", "db")},
        ),
        (Register("n3", "10.0.0.3"), {("nodes",), ("node", "n3")}),
    ],
)
def test_whom_a_change_wakes(world: World, command: Register | Deregister, topics: set[Topic]) -> None:
    plain = ServiceDefinition("web1", "web")
    world.done(Register("n1", "10.0.0.1", services=(plain, ServiceDefinition("db1", "db"))))
    world.done(Register("n2", "10.0.0.2", services=(ServiceDefinition("cache1", "cache"),)))
    world.done(command)
    assert world.machine.changes == topics


@pytest.mark.parametrize(
    "changed", [ServiceDefinition("web1", "web", ("new",)), ServiceDefinition("web1", "www")], ids=repr
)
def test_a_list_of_checks_shows_names_and_tags_of_services(world: World, changed: ServiceDefinition) -> None:
    world.done(Register("n1", "10.0.0.1", services=(ServiceDefinition("web1", "web"),), checks=(ALIVE,)))
    before = world.ask(ListChecks())
    world.done(Register("n1", "10.0.0.1", services=(changed,)))
    after = world.ask(ListChecks())
    assert after.value != before.value
    assert (before.index, after.index) == (1, 2)


def test_indexes_survive_removal_and_return(world: World) -> None:
    world.done(Register("n1", "10.0.0.1", services=(WEB,)))
    world.done(Register("n2", "10.0.0.2"))
    world.done(Deregister("n1", service_id="web1"))
    assert health(world).entries == ()
    assert world.ask(ServiceHealth("web")).index == 3
    assert world.ask(ListServices()).index == 3
    assert world.ask(NodeCatalog("n2")).index == 2
    world.done(Deregister("n1"))
    assert world.ask(NodeCatalog("n1")).index == 4
    assert world.ask(ListNodes()).index == 4
    world.done(Register("n1", "10.0.0.1", services=(WEB,)))
    assert world.ask(ServiceHealth("web")).index == 5


def test_everything_on_a_node_goes_with_it(world: World) -> None:
    world.done(Register("n1", "10.0.0.1", services=(WEB,), checks=(ALIVE, DISK)))
    world.done(Deregister("n1"))
    for table in ("nodes", "services", "checks"):
        assert world.content()[table] == []


def test_a_service_takes_its_checks_along(world: World) -> None:
    world.done(Register("n1", "10.0.0.1", services=(WEB,), checks=(ALIVE, DISK)))
    world.done(Deregister("n1", service_id="web1"))
    value = world.value(ListChecks())
    assert isinstance(value, Checks)
    assert [check.check.id for check in value.checks] == ["disk"]


def test_names_are_the_same_in_any_case_when_asked_for(world: World) -> None:
    world.done(Register("Node-1", "10.0.0.1", services=(ServiceDefinition("a", "Web"), ServiceDefinition("b", "web"))))
    assert [entry.service.service.name for entry in health(world, "WEB").entries] == ["Web", "web"]
    assert catalog(world, "NODE-1").entries[0].node.node == "Node-1"
    assert world.ask(ServiceHealth("wEb")).index == 1
    world.failed(Register("node-1", "10.0.0.2"), "conflict")


def test_checks_by_node_service_and_status(world: World) -> None:
    world.done(Register("n1", "10.0.0.1", services=(WEB,), checks=(ALIVE, DISK)))
    world.done(Register("n2", "10.0.0.2", checks=(CheckDefinition("disk", "Disk", "warning"),)))

    def asked(query: ListChecks) -> list[tuple[str, str]]:
        value = world.value(query)
        assert isinstance(value, Checks)
        return [(check.node, check.check.id) for check in value.checks]

    assert asked(ListChecks()) == [("n1", "alive"), ("n1", "disk"), ("n2", "disk")]
    assert asked(ListChecks(node="N1")) == [("n1", "alive"), ("n1", "disk")]
    assert asked(ListChecks(service="web")) == [("n1", "alive")]
    assert asked(ListChecks(status="warning")) == [("n2", "disk")]


def test_node_status(world: World) -> None:
    world.done(Register("n1", "10.0.0.1", services=(WEB,)))
    world.refused(SetNodeStatus(2, (NodeStatus("n1", "passing"),)))
    world.done(SetNodeStatus(1, (NodeStatus("n1", "passing", "Agent alive"), NodeStatus("n9", "passing"))))
    (check,) = health(world).entries[0].checks
    assert (check.check.id, check.check.name, check.check.output) == ("serfHealth", "Serf Health Status", "Agent alive")
    world.done(SetNodeStatus(1, (NodeStatus("n1", "passing", "Agent alive"),)))
    assert world.machine.changes == set()


def test_statuses_of_nodes_in_one_command_are_bounded() -> None:
    world = World(limits=Limits(rows_for_one_command=2))
    for name in ("n1", "n2", "n3"):
        world.done(Register(name, "10.0.0.1"))
    world.failed(SetNodeStatus(1, tuple(NodeStatus(name, "passing") for name in ("n1", "n2", "n3"))))
    world.done(SetNodeStatus(1, (NodeStatus("n1", "passing"), NodeStatus("n2", "passing"))))
    world.close()


def test_which_nodes_are_alive(world: World) -> None:
    """A node without an agent is neither alive nor dead; another check than `serfHealth` says nothing of it."""
    world.done(Register("bare", "10.0.0.1", checks=(CheckDefinition("disk", "Disk", "critical"),)))
    for status in (NodeStatus("dead", "critical"), NodeStatus("ill", "warning"), NodeStatus("well", "passing")):
        world.done(Register(status.node, "10.0.0.1"))
        world.done(SetNodeStatus(1, (status,)))
    assert world.machine.nodes_alive() == {"bare": None, "dead": False, "ill": False, "well": True}


def test_a_check_that_moves_to_another_service_wakes_both(world: World) -> None:
    db = ServiceDefinition("db1", "db")
    world.done(Register("n1", "10.0.0.1", services=(WEB, db, ServiceDefinition("x", "x")), checks=(ALIVE,)))
    world.done(Register("n1", "10.0.0.1", checks=(msgspec.structs.replace(ALIVE, service_id="db1"),)))
    assert world.machine.changes == {("checks",), ("node", "n1"), ("service", "web"), ("service", "db")}


def test_an_instance_without_its_node_is_a_contradiction(world: World) -> None:
    """No command leaves one behind; such a row can only come from damage, and is not shown as if it were healthy."""
    world.done(Register("n1", "10.0.0.1", services=(WEB,)))
    rows = world.machine._rows
    rows.nodes.delete("n1")
    with pytest.raises(InvariantError, match="n1"):
        health(world)
    rows.nodes.flush()


def test_a_node_name_is_taken_over_only_from_the_dead(world: World) -> None:
    world.done(Register("n1", "10.0.0.1", "id-1"))
    world.done(SetNodeStatus(1, (NodeStatus("n1", "passing"),)))
    assert "reserved" in world.failed(Register("n1", "10.0.0.2", "id-2"), "conflict")
    world.done(SetNodeStatus(1, (NodeStatus("n1", "critical"),)))
    world.done(Register("n1", "10.0.0.2", "id-2"))
    assert "belongs to" in world.failed(Register("n2", "10.0.0.2", "id-2"), "conflict")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (Register("", "10.0.0.1"), "missing node name"),
        (Register("a b", "10.0.0.1"), "letters"),
        (Register("n\n", "10.0.0.1"), "letters"),
        (Register("n", ""), "missing address"),
        (Register("n", "", skip_node_update=True), "address"),
        (Register("n", "x\0"), "control"),
        (Register("n", "1", services=(ServiceDefinition("a", ""),)), "missing service name"),
        (Register("n", "1", services=(ServiceDefinition("", "a"),)), "missing service id"),
        (Register("n", "1", services=(ServiceDefinition("a", "x\x7f"),)), "control"),
        (Register("n", "1", services=(ServiceDefinition("a", "x" * 129),)), "longer"),
        (Register("n", "1", services=(ServiceDefinition("a", "a", port=65536),)), "port"),
        (Register("n", "1", services=(ServiceDefinition("a", "a", port=-1),)), "port"),
        (Register("n", "1", services=(ServiceDefinition("a", "a", tags=("t",) * 129),)), "128 tags"),
        (Register("n", "1", services=(ServiceDefinition("a", "a", weight_passing=1 << 64 - 1),)), "weight"),
        (Register("n", "1", services=(ServiceDefinition("a", "a", tagged_addresses={"x": ("1", -1)}),)), "port"),
        (Register("n", "1", checks=(CheckDefinition("", "x"),)), "missing check id"),
        (Register("n", "1", checks=(CheckDefinition("c", "x", service_id="s"),)), "not registered"),
        (Register("n", "1", checks=(CheckDefinition("c", "x", output="x" * 9000),)), "output"),
        (
            Register(
                "n",
                "1",
                services=(ServiceDefinition("s", "s"),),
                checks=(CheckDefinition("serfHealth", "x", service_id="s"),),
            ),
            "no check of a service",
        ),
        (Register("n", "1", meta={str(n): "" for n in range(129)}), "128"),
        (Register("n", "1", services=tuple(ServiceDefinition(str(n), "s") for n in range(513))), "512 services"),
        (
            Register(
                "n",
                "1",
                services=(ServiceDefinition("a", "a", tagged_addresses={str(n): ("", 0) for n in range(129)}),),
            ),
            "128 tagged addresses",
        ),
    ],
)
def test_what_can_not_be_registered(world: World, command: Register, reason: str) -> None:
    assert reason in world.failed(command)


def test_removal_of_a_node_is_capped() -> None:
    world = World(limits=Limits(rows_for_one_command=3))
    world.done(Register("n1", "1", services=tuple(ServiceDefinition(f"s{n}", "s") for n in range(4))))
    world.failed(Deregister("n1"))
    world.done(Deregister("n1", service_id="s0"))
    world.done(Deregister("n1"))
    assert world.value(ListNodes()) == Nodes(())
    world.close()
