import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.minibatches import Rows, Windows
from learners.objective import Batch


def numbered(mask: list[list[int]]) -> Batch:
    """Every column says which row it is of, in its own dtype and shape."""
    decided = torch.tensor(mask, dtype=torch.float32)
    number = torch.arange(decided.numel()).view(decided.shape)
    return {
        "mask": decided,
        "float": number.float(),
        "long": number,
        "half": number.to(torch.int32),
        "vector": number[..., None].expand(*number.shape, 3).float(),
        "image": number[..., None, None].expand(*number.shape, 2, 2).to(torch.uint8),
        "window": torch.arange(len(decided)),
    }


masks = st.integers(1, 5).flatmap(
    lambda rows: st.lists(st.lists(st.integers(0, 1), min_size=rows, max_size=rows), min_size=1, max_size=5)
)


@settings(max_examples=60, deadline=None)
@given(mask=masks, parts=st.integers(1, 4))
def test_a_pass_has_every_decided_row_once_and_its_columns_together(mask: list[list[int]], parts: int) -> None:
    batch = numbered(mask)
    rows = Rows(batch)
    for _ in range(2):
        minibatches = list(rows.shuffled(parts))
        assert len(minibatches) == parts
        seen = torch.cat([minibatch["long"] for minibatch in minibatches]).flatten()
        assert sorted(seen.tolist()) == batch["long"][batch["mask"] > 0].tolist()
        for minibatch in minibatches:
            assert minibatch.keys() == batch.keys() - {"window"}
            for name, column in minibatch.items():
                assert column.dtype == batch[name].dtype and column.shape[1:] == (1, *batch[name].shape[2:])
                of_rows = column.flatten(1)[:, 0] if name != "mask" else minibatch["long"].flatten()
                assert torch.equal(of_rows.long(), minibatch["long"].flatten()), name
    sizes = [len(minibatch["mask"]) for minibatch in minibatches]
    assert max(sizes) - min(sizes) <= 1


def test_windows_stay_whole() -> None:
    batch = numbered([[1, 0, 1]] * 5)
    minibatches = list(Windows(batch).shuffled(2))
    assert [len(minibatch["mask"]) for minibatch in minibatches] == [3, 2]
    order = torch.cat([minibatch["window"] for minibatch in minibatches])
    assert sorted(order.tolist()) == list(range(5))
    assert torch.equal(torch.cat([minibatch["long"] for minibatch in minibatches]), batch["long"][order])
