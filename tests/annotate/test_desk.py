"""Who gets what next, against a slow model that counts from the beginning every time."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from crayon_sdk.annotate.desk import Desk

TASKS = [f"t{number}" for number in range(6)]
PEOPLE = ["ann", "ben", "cec"]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_in_order_and_not_twice():
    desk = Desk(TASKS)
    assert desk.hand_out("ann", 2) == ["t0", "t1"]
    assert desk.hand_out("ben", 2) == ["t2", "t3"]
    assert desk.hand_out("ann", 2, held=["t0", "t1"]) == ["t4", "t5"]
    assert desk.hand_out("ben", 9, held=["t2", "t3"]) == []
    assert desk.left("ben") == 6  # held by others, but not answered


def test_what_is_not_held_any_more_is_given_again_to_the_same_person():
    desk = Desk(TASKS)
    assert desk.hand_out("ann", 2) == ["t0", "t1"]
    assert desk.hand_out("ann", 2) == ["t0", "t1"]  # the page was loaded again


def test_two_votes_of_different_people():
    desk = Desk(["a"], votes=2)
    assert desk.hand_out("ann", 1) == ["a"]
    desk.answered("a", "ann")
    desk.answered("a", "ann")
    assert (desk.hand_out("ann", 1), desk.left("ann"), desk.done) == ([], 0, 0)
    assert desk.hand_out("ben", 1) == ["a"]
    assert desk.hand_out("cec", 1) == []  # ben has it in hand
    desk.answered("a", "ben")
    assert (desk.done, desk.left("cec"), desk.voters("a")) == (1, 0, {"ann", "ben"})


def test_comes_back_after_a_while_and_not_before():
    clock = Clock()
    desk = Desk(["a"], hold=60, clock=clock)
    assert desk.hand_out("ann", 1) == ["a"]
    clock.now = 59.9
    assert desk.hand_out("ben", 1) == []
    clock.now = 60.0
    assert desk.hand_out("ben", 1) == ["a"]
    desk.answered("a", "ann")  # late, and counted all the same
    assert desk.done == 1


def test_asking_for_more_holds_what_is_there():
    clock = Clock()
    desk = Desk(TASKS, hold=60, clock=clock)
    desk.hand_out("ann", 2)
    clock.now = 50
    desk.hand_out("ann", 0, held=["t0"])
    clock.now = 70
    assert desk.hand_out("ben", 2) == ["t1", "t2"]


def test_after_a_restart_what_people_have_in_hand_stays_theirs():
    desk = Desk(TASKS, voters={"t0": ["ann"]})
    assert desk.hand_out("ann", 0, held=["t0", "t1", "gone"]) == []
    assert desk.hand_out("ben", 9) == ["t2", "t3", "t4", "t5"]
    assert desk.done == 1


def test_taking_back_opens_again():
    desk = Desk(["a", "b"], votes=1)
    desk.answered("a", "ann")
    desk.withdrawn("a", "ben")
    assert desk.done == 1
    desk.withdrawn("a", "ann")
    assert (desk.done, desk.left("ann"), desk.given("ann")) == (0, 2, 0)
    desk.hold("a", "ann")
    assert desk.hand_out("ben", 9) == ["b"]


def test_another_order_of_what_is_open():
    desk = Desk(TASKS, votes=2)
    assert desk.hand_out("ann", 2) == ["t0", "t1"]
    desk.answered("t0", "ann")
    for person in ("ann", "ben"):
        desk.answered("t5", person)
    desk.reorder(["t5", "t4", "gone", "t3", "t4"])
    # What lacks one vote comes first, then the new order, then what it does not name; what is done stays done.
    assert desk.hand_out("ben", 9) == ["t0", "t4", "t3", "t1", "t2"]
    assert desk.hand_out("ann", 9, held=["t1"]) == ["t4", "t3", "t2"]
    assert (desk.done, desk.left("ann"), desk.left("ben"), len(desk)) == (1, 4, 5, 6)


def test_a_limit_counts_what_was_begun():
    clock = Clock()
    desk = Desk(TASKS, limit=3, voters={"t5": ["ann"]}, hold=60, clock=clock)
    assert (len(desk), desk.done, desk.left("ann"), desk.left("ben")) == (3, 1, 2, 2)
    assert desk.hand_out("ann", 1) == ["t0"]
    desk.reorder(["t4", "t3", "t2", "t1", "t0"])
    assert desk.hand_out("ben", 9) == ["t4"]
    assert desk.hand_out("cec", 9) == []
    desk.release("t0", "ann")
    assert desk.hand_out("cec", 9) == ["t3"]  # another one may take its place, whoever asks
    clock.now = 60
    desk.answered("t3", "cec")
    assert (desk.hand_out("ann", 9), desk.done, desk.left("ann")) == (["t4"], 2, 1)
    desk.withdrawn("t3", "cec")
    desk.hold("t3", "cec")
    assert (desk.hand_out("ben", 9), desk.left("cec")) == ([], 2)
    # What a page had at hand when the server was restarted counts, though it is one more.
    for task in ("t0", "t1", "t2"):
        desk.answered(task, "dan")
    assert (len(desk), desk.done, desk.left("cec")) == (4, 4, 0)


def test_a_limit_and_two_votes_ask_both_about_the_same():
    desk = Desk(TASKS, limit=2, votes=2)
    assert desk.hand_out("ann", 9) == ["t0", "t1"]
    for task in ("t0", "t1"):
        desk.answered(task, "ann")
    desk.reorder(TASKS[::-1])
    assert (desk.hand_out("ben", 9), desk.left("ann"), desk.hand_out("ann", 9)) == (["t1", "t0"], 0, [])


actions = st.lists(
    st.tuples(
        st.sampled_from(["hand_out", "answered", "withdrawn", "pass", "reorder"]),
        st.sampled_from(PEOPLE),
        st.sampled_from(TASKS),
        st.integers(0, 4),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(actions, st.integers(1, 3), st.dictionaries(st.sampled_from(TASKS), st.sets(st.sampled_from(PEOPLE))))
def test_like_the_slow_model(actions, votes, before):
    clock = Clock()
    desk = Desk(TASKS, votes=votes, voters=before, hold=10, clock=clock)
    voters = defaultdict(set, {task: set(people) for task, people in before.items()})
    holds = defaultdict(dict)
    for action, person, task, count in actions:
        if action == "pass":
            clock.now += 3
        elif action == "reorder":
            desk.reorder([*TASKS[count:], task])
        elif action == "answered":
            desk.answered(task, person)
            voters[task].add(person)
            holds[task].pop(person, None)
        elif action == "withdrawn":
            desk.withdrawn(task, person)
            voters[task].discard(person)
        else:
            free = {
                task
                for task in TASKS
                if person not in voters[task]
                and len(voters[task]) < votes
                and len(voters[task] | {p for p, end in holds[task].items() if end > clock.now and p != person}) < votes
            }
            given_out = desk.hand_out(person, count)
            assert len(given_out) == len(set(given_out)) == min(count, len(free))
            assert set(given_out) <= free
            for one in given_out:
                holds[one][person] = clock.now + 10
        open_tasks = [task for task in TASKS if len(voters[task]) < votes]
        assert desk.done == len(TASKS) - len(open_tasks)
        for one in PEOPLE:
            assert desk.left(one) == sum(one not in voters[task] for task in open_tasks)
            assert desk.given(one) == sum(one in voters[task] for task in TASKS)
