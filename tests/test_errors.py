"""Hints in errors."""

from hypothesis import given
from hypothesis import strategies as st

from smmix_pl.errors import did_you_mean

words = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=8)


@given(words, st.lists(words, min_size=2, unique=True))
def test_a_hint_never_repeats_the_wrong_word(wrong, known):
    hint = did_you_mean(wrong, [*known, wrong])
    assert wrong not in hint.removeprefix("Did you mean ").removesuffix("?").split(" or ")


def test_a_hint_names_the_nearest_word():
    assert "alpha" not in did_you_mean("alpha", ["alpha", "alpha_range", "switch_prob"]).split()
    hint = did_you_mean("swich_prob", ["alpha", "consistency", "min_side_ratio", "switch_prob"])
    assert hint.startswith("Did you mean switch_prob or ")
