"""Malformed requests, 210 of them: each exits 2 with a message, without a traceback, and leaves nothing on the disk."""

import malformed
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("kind", malformed.KINDS)
def test_malformed(kind):
    seen = []

    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data):
        request = data.draw(malformed.KINDS[kind])
        answer = malformed.ask(request)
        assert malformed.problem(request, answer) is None, request
        seen.append(answer.code)

    check()
    assert seen.count(2) >= 24
