from hypothesis import given
from hypothesis import strategies as st

from lth_cli.config.seeds import derive_seed


def test_same_on_every_machine():
    # The first 63 bits of `printf '[0,"order",3]' | sha256sum`; another value would reorder every stored training.
    assert derive_seed(0, "order", 3) == int("bc41cfc5e3ba89c5", 16) >> 1


@given(st.integers(0, 2**53 - 1), st.sampled_from(["order", "dropout"]), st.integers(0, 10**6))
def test_purposes_and_numbers_are_unrelated(seed, purpose, number):
    derived = derive_seed(seed, purpose, number)
    assert 0 <= derived < 2**63
    assert derived != derive_seed(seed, purpose, number + 1)
    assert derived != derive_seed(seed + 1, purpose, number)
    assert derived != derive_seed(seed, purpose + "s", number)
