"""Numbers of nodes that change by themselves: what is decided, and what never is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_hpc.errors import ConfigError
from flower_hpc.federation import FederationConfig
from flower_hpc.federation.elastic import decide, fit
from flower_hpc.federation.elastic_config import Autoscale, Burst
from flower_hpc.federation.elastic_seen import Memory, Rule, Rules, Seen, SiteSeen, cost, targets
from flower_hpc.federation.rehearsal import decisions_of, rehearse, rehearsed, traces_of

MINUTE = 60.0


class World:
    """A federation in which time passes; what shall be there is there ``starts_s`` later, if it can be."""

    def __init__(self, rules, wish, *, free=100, starts_s=0.0):
        self.rules, self.wish, self.free, self.starts_s = rules, dict(wish), free, starts_s
        self.time, self.generation, self.run, self.blind = 1e6, 1, None, False
        self.broken, self.used = dict.fromkeys(wish, 0), {}
        self.memory, self.known, self.since = Memory(), dict.fromkeys(wish, 0), {}
        self.told, self.seen = [], []

    @property
    def shall(self):
        return targets(self.rules, self.memory, self.wish)

    def see(self):
        sites, shall = {}, self.shall
        for site, count in shall.items():
            new = max(0, count - self.known[site])
            self.free, self.known[site] = self.free - new, self.known[site] + new
            names = [(site, k) for k in range(count)]
            for name in names:
                works = name[1] >= self.broken[site]
                if self.since.get(name, (None, 0))[0] is not works:
                    self.since[name] = works, self.time
            up = {n for n in names if self.since[n][0] and self.time - self.since[n][1] >= self.starts_s}
            sites[site] = SiteSeen(
                wish=self.wish[site],
                target=count,
                online=tuple(self.since[n][1] for n in names if n in up),
                away=tuple(self.since[n][1] for n in names if n not in up),
                used=min(len(up), self.used.get(site, len(up))) if self.run else 0,
                known=self.known[site],
            )
            for name in [n for n in self.since if n[0] == site and n not in names]:
                del self.since[name]
        more = {"generation": self.generation, "run": self.run, "blind": self.blind, "free": self.free}
        return Seen(time=self.time, sites=sites, **more)

    def go(self, seconds, every=10.0):
        """What is decided in ``seconds``."""
        end, first = self.time + seconds, len(self.told)
        while self.time < end:
            seen = self.see()
            self.seen.append(seen)
            self.memory, decisions = decide(self.rules, self.memory, seen)
            self.told += [(self.time, one) for one in decisions]
            self.time += every
        return [(one.site, one.before, one.after) for _, one in self.told[first:]]


def lab(most=None, **burst):
    hpc = Rule(burst=Burst(to="cloud", after_queue_minutes=20, **burst))
    return Rules({"hpc": hpc, "cloud": Rule(usd_per_hour=0.5)}, most)


def test_a_queue_that_does_not_move_leads_to_the_cloud_in_time_and_back():
    world = World(lab(), {"hpc": 3, "cloud": 0})
    assert world.go(600) == []
    world.broken["hpc"] = 2
    lost = world.time
    assert world.go(30 * MINUTE) == [("cloud", 0, 2)]
    assert world.told[0][0] - lost == 20 * MINUTE
    assert "2 of hpc's 3 nodes are away for 20 min or more" in world.told[0][1].reason
    assert (world.told[0][1].usd_before, world.told[0][1].usd_after) == (0.0, 1.0)
    world.broken["hpc"] = 1
    back = world.time
    assert world.go(10 * MINUTE) == [("cloud", 2, 1)]
    assert world.told[1][0] - back == 2 * MINUTE
    world.broken["hpc"] = 0
    assert world.go(10 * MINUTE) == [("cloud", 1, 0)]


def test_a_node_that_comes_and_goes_does_not_make_its_replacement_flap():
    world = World(lab(), {"hpc": 1, "cloud": 0})
    world.broken["hpc"] = 1
    world.go(25 * MINUTE)
    for _ in range(20):  # online for a minute, away for two
        world.broken["hpc"] = 0
        world.go(MINUTE)
        world.broken["hpc"] = 1
        world.go(2 * MINUTE)
    assert len(world.told) == 1


def test_a_replacement_is_not_kept_for_nodes_that_nobody_wants_any_more():
    world = World(lab(), {"hpc": 3, "cloud": 1})
    world.broken["hpc"] = 3
    assert world.go(25 * MINUTE) == [("cloud", 1, 4)]
    world.wish["hpc"], world.generation = 1, 2
    assert world.go(MINUTE) == [("cloud", 4, 2)]


def test_without_runs_nothing_is_replaced_where_the_policy_says_so():
    world = World(lab(idle_minutes=5), {"hpc": 2, "cloud": 0})
    world.broken["hpc"] = 2
    assert world.go(60 * MINUTE) == []
    world.run = world.time
    assert world.go(MINUTE) == [("cloud", 0, 2)]
    world.run = None
    assert world.go(4 * MINUTE) == []
    assert world.go(2 * MINUTE) == [("cloud", 2, 0)]


def test_the_budget_holds_back_and_says_so_once():
    world = World(lab(1.2), {"hpc": 4, "cloud": 0})
    world.broken["hpc"] = 4
    assert world.go(60 * MINUTE) == [("cloud", 0, 2)]
    assert world.told[0][1].reason.endswith("2 more held back by the budget of $1.2 an hour")
    world.rules = lab(0.5)  # the user lowers it
    assert world.go(60 * MINUTE) == [("cloud", 2, 1)]
    world.rules = lab(100)
    assert world.go(60 * MINUTE) == [("cloud", 1, 4)]


def test_partitions_hold_back_and_a_name_that_was_there_before_needs_no_new_one():
    world = World(lab(), {"hpc": 3, "cloud": 0}, free=4)
    world.go(MINUTE)
    world.broken["hpc"] = 3
    assert world.go(60 * MINUTE) == [("cloud", 0, 1)]
    assert "2 more held back by the number of partitions" in world.told[0][1].reason
    world.broken["hpc"] = 0
    world.go(60 * MINUTE)
    world.broken["hpc"] = 3
    assert world.go(60 * MINUTE) == [("cloud", 0, 1)]


def scaled(**more):
    return Rules({"a": Rule(Autoscale(min=1, max=8, idle_minutes=10), usd_per_hour=1.0)}, **more)


def test_a_site_grows_while_every_node_is_used_and_shrinks_when_none_is():
    world = World(scaled(), {"a": 2}, starts_s=60)
    assert world.go(5 * MINUTE) == []
    world.run = world.time
    assert world.go(10 * MINUTE) == [("a", 2, 4), ("a", 4, 8)]  # each time only once all are there
    world.run = None
    stopped = world.time
    assert world.go(20 * MINUTE) == [("a", 8, 1)]
    assert 10 * MINUTE <= world.told[-1][0] - stopped <= 10 * MINUTE + 10
    world.run = world.time
    assert world.go(30)[0] == ("a", 1, 2)  # what the user asks for is there at once


@pytest.mark.parametrize("used", [0, 1])
def test_a_run_that_leaves_nodes_out_makes_no_site_grow(used):
    world = World(scaled(), {"a": 2})
    world.run, world.used = world.time, {"a": used}
    moves = world.go(120 * MINUTE)
    assert moves == ([("a", 2, 1)] if used == 0 else [])  # and does not flap
    world.blind = True
    assert world.go(120 * MINUTE) == []


def test_a_run_that_says_nothing_of_its_nodes_keeps_them_all():
    world = World(scaled(), {"a": 2})
    world.run, world.blind, world.used = world.time, True, {"a": 0}
    assert world.go(120 * MINUTE) == []


def test_growth_ends_at_the_budget():
    world = World(scaled(max_usd_per_hour=5.5), {"a": 2})
    world.run = world.time
    assert world.go(60 * MINUTE) == [("a", 2, 4), ("a", 4, 5)]


def test_the_cheaper_site_grows_first():
    rule = Autoscale(max=4)
    rules = Rules({"dear": Rule(rule, None, 3.0), "free": Rule(rule), "cheap": Rule(rule, None, 1.0)}, 6.0)
    world = World(rules, {"dear": 1, "free": 2, "cheap": 1})
    world.run = world.time
    world.go(60 * MINUTE)
    assert world.shall == {"dear": 1, "free": 4, "cheap": 3}


def test_what_the_user_asks_for_is_had_at_once_and_extra_nodes_make_room_for_it():
    world = World(scaled(), {"a": 4})
    assert world.go(20 * MINUTE) == [("a", 4, 1)]
    world.generation = 2  # `scale a 4`, once more
    assert fit(world.rules, world.memory, world.see())[0].own == {}
    rules = Rules({"hpc": lab().sites["hpc"], "cloud": Rule(Autoscale(max=5))})
    world = World(rules, {"hpc": 3, "cloud": 2})
    world.broken["hpc"] = 3
    world.go(21 * MINUTE)
    assert world.shall["cloud"] == 3  # min 0 and no run; the three that stand in stay
    world.wish["cloud"], world.generation = 4, 2
    memory, decisions = fit(rules, world.memory, world.see())
    assert targets(rules, memory, world.wish)["cloud"] == 5
    assert "the site's most, 5 nodes" in decisions[0].reason


def test_nodes_that_still_run_are_paid_for_until_they_are_gone():
    rules = lab(1.0)
    away = SiteSeen(wish=2, away=(0.0, 0.0), known=2)
    seen = Seen(time=1e4, sites={"hpc": away, "cloud": SiteSeen(wish=0, leaving=1, known=2)}, generation=1)
    memory, decisions = decide(rules, Memory(generation=1), seen)
    assert [(one.before, one.after) for one in decisions] == [(0, 1)]
    gone = seen.model_copy(update={"sites": {"hpc": away, "cloud": SiteSeen(wish=0, known=2)}})
    assert [(one.before, one.after) for one in decide(rules, memory, gone)[1]] == [(1, 2)]


# -- whatever happens ------------------------------------------------------------------------------

AMOUNT = st.floats(0, 30, allow_nan=False)
PRICE = st.sampled_from([0.0, 0.1, 0.526, 3.0])


@st.composite
def worlds(draw):
    names = ["a", "b", "c"][: draw(st.integers(2, 3))]
    wish = {name: draw(st.integers(0, 4)) for name in names}
    rules = {}
    for index, name in enumerate(names):
        scale = burst = None
        if draw(st.booleans()):
            low, high = draw(st.integers(0, wish[name])), draw(st.integers(max(1, wish[name]), 9))
            scale = Autoscale(min=low, max=high, idle_minutes=draw(AMOUNT))
        if index + 1 < len(names) and draw(st.booleans()):
            more = {"max": draw(st.none() | st.integers(1, 3)), "idle_minutes": draw(st.none() | AMOUNT)}
            after, back = draw(AMOUNT), draw(AMOUNT)
            to = names[draw(st.integers(index + 1, len(names) - 1))]
            burst = Burst(to=to, after_queue_minutes=after, back_after_minutes=back, **more)
        rules[name] = Rule(scale, burst, draw(PRICE))
    least = cost(Rules(rules), wish)
    most = draw(st.none() | st.floats(least, least + 10))
    return World(Rules(rules, most), wish, free=sum(wish.values()) + draw(st.integers(0, 8)))


@st.composite
def happenings(draw, names):
    broken = {name: draw(st.integers(0, 4)) for name in names}
    used = {name: draw(st.integers(0, 9)) for name in names}
    return draw(st.booleans()), broken, used, draw(st.integers(1, 60))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_budget_bounds_and_partitions_hold_and_the_same_again_changes_nothing(data):
    world = data.draw(worlds())
    rules = world.rules
    for _ in range(4):
        running, broken, used, minutes = data.draw(happenings(list(world.wish)))
        world.run = (world.run or world.time) if running else None
        world.broken, world.used = broken, used
        for _ in range(minutes):
            seen = world.see()
            memory, decisions = decide(rules, world.memory, seen)
            again, nothing = decide(rules, memory, seen)
            assert nothing == []
            assert again == memory
            world.memory, world.time = memory, world.time + 37
            shall = world.shall
            if rules.max_usd_per_hour is not None:
                assert cost(rules, shall) <= rules.max_usd_per_hour + 1e-6
            new = sum(max(0, count - seen.sites[name].known) for name, count in shall.items())
            assert new <= seen.free
            for name, count in shall.items():
                scale = rules.sites[name].autoscale
                assert count >= (scale.min if scale else world.wish[name])
                assert count <= (scale.max if scale else 100)
            for one in decisions:
                assert one.after == one.before or shall[one.site] is not None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_while_nothing_changes_it_comes_to_rest(data):
    world = data.draw(worlds())
    running, world.broken, world.used, _ = data.draw(happenings(list(world.wish)))
    world.run = world.time if running else None
    world.go(3 * 3600, every=60)
    assert world.go(10 * 3600, every=60) == []


# -- the file --------------------------------------------------------------------------------------

SITE = "sites: {a: {nodes: 2, %s}, b: {nodes: 1, %s}}"
TO_B = "burst: {to: b, after_queue_minutes: %s}"
WRONG = {
    SITE % ("burst: {to: c, after_queue_minutes: 1}", ""): "sites.a.burst.to: got 'c', must be another",
    SITE % ("burst: {to: a, after_queue_minutes: 1}", ""): "a.burst.to: got 'a', must be another site: b",
    SITE % ("burst: {to: b}", ""): "sites.a.burst.after_queue_minutes: is missing, must be a number",
    SITE % ("burst: {after_queue_minutes: 1}", ""): "sites.a.burst.to: is missing, must be the name",
    SITE % (TO_B % ".inf", ""): "after_queue_minutes: got inf, must be a number from",
    SITE % (TO_B % "true", ""): "after_queue_minutes: got True, must be a number",
    SITE
    % (
        "burst: {to: b, after_queue_minutes: 1}",
        "burst: {to: a, after_queue_minutes: 1}",
    ): "sites.b.burst.to: got 'a', must be a site that does not burst back: a -> b -> a",
    SITE % ("burst: 3", ""): "sites.a.burst: got 3, must be a mapping",
    SITE % ("autoscale: {min: 3, max: 2}", ""): "sites.a.autoscale: got {'max': 2, 'min': 3}, must be a map",
    SITE % ("autoscale: {min: 3, max: 4}", ""): "sites.a.nodes: got 2, must be from 3 to 4, as its",
    SITE % ("autoscale: {max: 1}", ""): "sites.a.nodes: got 2, must be from 0 to 1, as its autoscale says",
    SITE % ("autoscale: {max: -1}", ""): "sites.a.autoscale.max: got -1, must be an integer from 1 to 1000",
    SITE % ("autoscale: {most: 1}", ""): "sites.a.autoscale.most: unknown field, must be one of: min",
    SITE % ("usd_per_hour: -1", ""): "sites.a.usd_per_hour: got -1, must be a number from 0 to 1000000",
    SITE % ("usd_per_hour: .nan", ""): "usd_per_hour: got nan, must be a number",
    "max_usd_per_hour: 1\n" + SITE % ("usd_per_hour: 0.6", ""): "got 1, must be at least the 1",
    "sites: {a: {nodes: 1}, b: {nodes: 0}}": "sites.b.nodes: got 0, must be an integer from 1 to 1000, or 0",
    "sites: {a: {nodes: 0, autoscale: {max: 1}}}": "sites: got 0 nodes in all, must be at least 1",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_one_line(tmp_path, text):
    path = tmp_path / "federation.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        FederationConfig.load(path)
    assert WRONG[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_file_is_read_and_there_are_partitions_for_all_that_may_come():
    config = FederationConfig.parse(
        {
            "max_usd_per_hour": 20,
            "sites": {
                "hpc": {"nodes": 4, "burst": {"to": "cloud", "after_queue_minutes": 20}},
                "lab": {"nodes": 2, "burst": {"to": "cloud", "after_queue_minutes": 0.5, "max": 1}},
                "cloud": {"nodes": 0, "usd_per_hour": 0.526},
                "more": {"nodes": 1, "autoscale": {"min": 0, "max": 8, "idle_minutes": 10}},
            },
        },
        "test",
    )
    assert config.most == {"hpc": 4, "lab": 2, "cloud": 5, "more": 8}
    assert FederationConfig.parse(config.model_dump(mode="json"), "again") == config


# -- rehearsals ------------------------------------------------------------------------------------


def test_a_rehearsal_under_the_same_rules_decides_the_same_and_other_rules_meet_the_same_trouble():
    world = World(lab(), {"hpc": 2, "cloud": 0})
    world.go(MINUTE)
    world.broken["hpc"] = 2
    world.go(40 * MINUTE)
    world.broken["hpc"] = 0
    world.go(10 * MINUTE)
    told = list(rehearse(world.rules, [world.seen]))
    assert told == world.told
    quick = Rules({"hpc": Rule(burst=Burst(to="cloud", after_queue_minutes=5, max=1)), "cloud": Rule()})
    times = [at for at, _ in rehearse(quick, [world.seen])]
    assert [(one.before, one.after) for _, one in rehearse(quick, [world.seen])] == [(0, 1), (1, 0)]
    assert told[0][0] - times[0] == 15 * MINUTE
    # what did not happen then happens in the rehearsal: the site grows, and its nodes are used as the others
    world = World(Rules({"a": Rule()}), {"a": 2})
    world.run = world.time
    world.go(10 * MINUTE)
    assert world.told == []
    assert [(one.before, one.after) for _, one in rehearse(scaled(), [world.seen])] == [(2, 4), (4, 8)]


def test_a_record_of_something_else_is_one_line(tmp_path):
    config = FederationConfig.parse({"sites": {"a": {"nodes": 1}}}, "test")
    path = tmp_path / "events.jsonl"
    with pytest.raises(ConfigError, match=r"there is no such file"):
        rehearsed(config, path)
    for text in (
        "no json\n",
        '{"event": "seen"}\n',
        '{"event": "run_started"}\n',
        '{"event": "seen", "seen": 3}\n',
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"must be what a controller wrote down"):
            rehearsed(config, path)
    seen = Seen(time=1.0, sites={"b": SiteSeen(wish=1)}).model_dump(mode="json")
    path.write_text(json.dumps({"event": "seen", "seen": seen}) + "\n")
    with pytest.raises(ConfigError, match=r"with the sites a, got one with b"):
        rehearsed(config, path)
    assert decisions_of([{"event": "seen"}]) == []
    assert len(traces_of([{"event": "seen", "seen": seen}, {"event": "began"}], path)) == 1
