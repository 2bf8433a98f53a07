"""What is worked out beside the answering: always the newest in the end, and nobody waits."""

from __future__ import annotations

import logging
import threading
import time

from crayon_sdk.annotate.follower import Follower


def wait(reached):
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_changes_meanwhile_are_one_more_turn():
    answers, seen, go_on = [], [], threading.Event()

    def work():
        seen.append(len(answers))
        if answers:
            assert go_on.wait(30)
        return {"spot": seen[-1]}

    follower = Follower(work)
    assert follower.told == {"foresight": {"spot": 0}, "current": True}
    with follower.following():
        answers.append("yes")
        follower.changed()
        wait(lambda: len(seen) == 2)
        for _ in range(50):  # each returns at once, though the work is stuck
            answers.append("no")
            follower.changed()
        assert follower.told == {"foresight": {"spot": 0}, "current": False}
        go_on.set()
        wait(lambda: follower.told["current"])
    assert (seen, follower.told["foresight"]) == ([0, 1, 51], {"spot": 51})


def test_a_fault_leaves_what_was_known(caplog):
    turns = iter([{"spot": 1}, ValueError("no such thing"), {"spot": 3}])

    def work():
        found = next(turns)
        if isinstance(found, Exception):
            raise found
        return found

    follower = Follower(work)
    with follower.following(), caplog.at_level(logging.WARNING):
        follower.changed()
        wait(lambda: follower.told["current"])
        assert follower.told["foresight"] == {"spot": 1}
        assert "could not be worked out: no such thing" in caplog.text
        follower.changed()
        wait(lambda: follower.told["foresight"] == {"spot": 3})


def test_it_ends_with_its_block():
    follower = Follower(dict)
    with follower.following():
        assert "crayon-annotate-follow" in {each.name for each in threading.enumerate()}
    assert "crayon-annotate-follow" not in {each.name for each in threading.enumerate()}
