import numpy as np

from tests.secagg.statistics import by_chance, uniform_bytes, uniform_counts


def test_the_tests_for_chance_let_chance_pass_and_notice_the_rest() -> None:
    uniform = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8)
    assert uniform_bytes(uniform) > 1e-3
    uniform[:3000] = 7
    assert uniform_bytes(uniform) < 1e-9
    assert uniform_counts(np.array([510, 490])) > 1e-3
    assert uniform_counts(np.array([600, 400])) < 1e-6
    assert by_chance(510, 1000) > 1e-3
    assert max(by_chance(600, 1000), by_chance(400, 1000)) < 1e-6
