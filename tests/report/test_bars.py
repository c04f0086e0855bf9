"""Memory as bars: to scale, never longer than the card, with the ceiling in its place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rackserve.catalog.loader import load_catalog
from rackserve.planning.fit import plan_hosts
from rackserve.report.bars import card_bars, gpu_bar
from rackserve.settings import load_hosts
from tests.planning.sizing import sized


def drawn(text: str) -> str:
    return text[text.index("[") + 1 : text.rindex("]")]


def test_gpus_that_carry_the_same_services_share_a_line():
    services = [{"name": "big", "model": "qwen3-8b", "gpus": 4}, {"name": "small", "model": "qwen3-4b"}]
    host = {"gpu_tag": "l40s", "gpu_count": 8, "services": services}
    (plan,) = plan_hosts(load_hosts([("h1", host)]), load_catalog())
    lines = [bar.plain.strip() for bar in card_bars(plan)]
    assert [line.split("[")[0].strip() for line in lines] == ["GPU 0-3", "GPU 4", "GPU 5-7"]
    assert lines[0].endswith("big")
    assert lines[2].endswith("0.0 of 44.4 GiB: free")


def test_parts_are_drawn_to_scale_up_to_the_ceiling():
    sizing = sized(total_mib=81_920)
    bar = drawn(gpu_bar(sizing).plain)
    assert len(bar) == 60
    assert bar.count("█") == round(60 * sizing.weights_bytes / sizing.stage.total)
    assert len(bar.rstrip("·|")) in {50, 51, 52}
    roomy = drawn(gpu_bar(sized("l40s", runtime="llama.cpp", quantization="Q4_K_M", max_model_len=4096)).plain)
    assert roomy.index("|") == 51


@given(st.integers(2_000, 200_000), st.sampled_from([0.5, 0.85, 0.92]))
def test_a_bar_is_never_longer_than_the_card(total_mib, ceiling):
    assert len(drawn(gpu_bar(sized(total_mib=total_mib, ceiling=ceiling)).plain)) == 60
