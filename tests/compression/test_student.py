"""Students: narrower, shallower, with layers composed, or the user's own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from lathe.errors import BadVariant, InvalidInput, NotFound
from lathe_compression.centerface import centerface, fused_centerface, weights_file
from lathe_compression.channels import find_groups, macs_by_layer
from lathe_compression.student import Student, build_student, compose_linear, drop_evenly
from lathe_compression.taps import block_outputs, shapes, traced
from tests.compression.networks import BlockDetector, InvertedResidual, block_detector, plain_block_detector, planes

ONE = planes(1)


def build(student: Student, seed: int = 1, teacher: nn.Module | None = None) -> fx.GraphModule:
    return build_student(student, traced(teacher or block_detector()), ONE, Path(), seed)


def equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        value.shape == second[name].shape and torch.equal(value, second[name]) for name, value in first.items()
    )


@pytest.mark.parametrize(
    ("width", "hidden", "stream"),
    [(1.0, [32, 32, 32, 48], 24), (0.5, [16, 16, 16, 24], 16), (0.25, [8, 8, 8, 16], 8), (0.01, [8, 8, 8, 8], 8)],
)
def test_width_is_the_share_of_channels_in_multiples_of_eight(width: float, hidden: list[int], stream: int) -> None:
    student = build(Student(width=width))
    assert [student.get_submodule(f"blocks.{number}.expand").out_channels for number in range(4)] == hidden
    assert student.get_submodule("blocks.3.project").out_channels == stream
    assert [value.shape for value in student(ONE)] == [value.shape for value in block_detector()(ONE)]


def test_largest_channels_stay() -> None:
    teacher = block_detector()
    with torch.no_grad():
        teacher.blocks[1].expand.weight[::2] *= 1e-3
    student = build(Student(width=0.5), teacher=teacher)
    assert student.get_submodule("blocks.1.expand").weight.abs().amax(dim=(1, 2, 3)).min() > 0.01


@pytest.mark.parametrize(("depth", "dropped"), [(1.0, []), (0.5, ["add_1"]), (0.0, ["add", "add_1"])])
def test_depth_is_the_share_of_residual_blocks(depth: float, dropped: list[str]) -> None:
    student = build(Student(depth=depth))
    assert set(block_outputs(traced(block_detector()))) - set(block_outputs(student)) == set(dropped)
    assert not any(name.startswith("blocks.3") for name, _ in student.named_modules()) or "add_1" not in dropped
    assert [value.shape for value in student(ONE)] == [value.shape for value in block_detector()(ONE)]


class Deep(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem, self.end = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.blocks = nn.Sequential(*[InvertedResidual(8, 8, 16) for _ in range(blocks)])

    def forward(self, planes: Tensor) -> Tensor:
        made: Tensor = self.end(self.blocks(self.stem(planes)))
        return made


@pytest.mark.parametrize(
    ("blocks", "keep", "stay"),
    [
        (4, 1.0, [0, 1, 2, 3]),
        (5, 0.6, [0, 2, 4]),
        (5, 0.4, [0, 4]),
        (6, 0.5, [0, 2, 5]),
        (5, 0.2, [0]),
        (3, 0.0, []),
    ],
)
def test_blocks_go_evenly_over_the_depth(blocks: int, keep: float, stay: list[int]) -> None:
    network = traced(Deep(blocks).eval())
    dropped = drop_evenly(network, keep)
    left = {name.split(".")[1] for name, _ in network.named_modules() if name.count(".") == 2}
    assert (sorted(map(int, left)), len(dropped)) == (stay, blocks - len(stay))


def test_shallow_network_is_the_one_with_the_branch_at_nothing() -> None:
    teacher = block_detector()
    shallow = traced(block_detector())
    drop_evenly(shallow, 0.5)
    with torch.no_grad():
        teacher.blocks[3].norms[2].weight.zero_()
        teacher.blocks[3].norms[2].bias.zero_()
    for one, other in zip(shallow(ONE), teacher(ONE), strict=True):
        torch.testing.assert_close(one, other)


def test_network_without_residual_blocks_cannot_be_shallower() -> None:
    network = traced(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)))
    with pytest.raises(BadVariant, match="no residual block that could go; depth cannot shrink it"):
        drop_evenly(network, 0.5)


def test_student_starts_from_the_teacher_unless_told_otherwise() -> None:
    teacher = block_detector()
    assert equal(build(Student(depth=1.0), teacher=teacher), traced(teacher))
    fresh = build(Student(width=0.5, from_teacher=False))
    assert equal(fresh, build(Student(width=0.5, from_teacher=False)))
    assert not equal(fresh, build(Student(width=0.5, from_teacher=False), seed=2))
    assert not equal(fresh, build(Student(width=0.5)))
    assert all(not module.running_mean.any() for module in fresh.modules() if isinstance(module, nn.BatchNorm2d))


def test_teacher_stays_as_it_is() -> None:
    teacher = traced(block_detector())
    for student in (Student(width=0.5, depth=0.5), Student(from_teacher=False)):
        build_student(student, teacher, ONE, Path(), 1)
    assert equal(teacher, traced(block_detector()))


def test_own_factory() -> None:
    network = build(Student("tests.compression.networks:tiny_detector"))
    assert isinstance(network, fx.GraphModule)
    assert "stem.0" in dict(network.named_modules())


@pytest.mark.parametrize(
    ("factory", "error"),
    [
        ("tests.compression.networks:nothing", NotFound),
        ("tests.compression.networks:not_a_network", InvalidInput),
        ("tests.compression.networks:branching_detector", BadVariant),
        ("student.pt", BadVariant),
    ],
)
def test_factory_that_makes_no_student_is_told(factory: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        build(Student(factory))


@pytest.mark.parametrize(
    "wrong", [{"width": 0.0}, {"width": 1.1}, {"depth": -0.1}, {"factory": "a:b", "width": 0.5}], ids=str
)
def test_wrong_settings_are_told(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"at most 1|not both"):
        Student(**wrong)  # type: ignore[arg-type]


def pointwise(*widths: int, bias: bool = True) -> fx.GraphModule:
    torch.manual_seed(0)
    return traced(nn.Sequential(*[nn.Conv2d(a, b, 1, bias=bias) for a, b in itertools.pairwise(widths)]).eval())


@pytest.mark.parametrize(
    ("why", "widths", "left"),
    [
        ("a wide middle is dearer than none", (3, 32, 8), 1),
        ("a narrow middle is what saves work", (24, 4, 24), 2),
        ("equal work stays as it is", (4, 2, 4), 2),
        ("a whole row becomes one", (3, 32, 32, 32, 4), 1),
        ("what comes of the first two counts for the third", (8, 16, 8, 2, 8), 2),
    ],
)
def test_linear_layers_become_one_where_that_is_less_work(why: str, widths: tuple[int, ...], left: int) -> None:
    network = pointwise(*widths)
    values = torch.randn(2, widths[0], 5, 7)
    before, work = network(values), sum(macs_by_layer(network, values).values())
    gone = compose_linear(network)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert (len(layers), len(gone)) == (left, len(widths) - 1 - left), why
    assert sum(macs_by_layer(network, values).values()) < work or not gone
    torch.testing.assert_close(network(values), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_composing_is_exact_with_and_without_biases(biases: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    network = traced(nn.Sequential(nn.Conv2d(3, 32, 1, bias=biases[0]), nn.Conv2d(32, 8, 1, bias=biases[1])))
    before = network(ONE)
    assert compose_linear(network) == ["0"]
    torch.testing.assert_close(network(ONE), before, rtol=1e-4, atol=1e-4)


class Shared(nn.Module):
    """The first layer is read twice, or called twice."""

    def __init__(self, *, calls: bool) -> None:
        super().__init__()
        self.calls, self.first, self.second = calls, nn.Conv2d(3, 32, 1), nn.Conv2d(32, 4, 1)

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.first(planes)
        return self.second(middle), self.first(planes * 2) if self.calls else middle


@pytest.mark.parametrize(
    "network",
    [
        Shared(calls=True),
        Shared(calls=False),
        nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 4, 1)),
        nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 4, 3)),
        nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 4, 1, stride=2)),
        nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 4, 1, padding=1)),
        nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 4, 1, groups=2)),
    ],
    ids=["called twice", "read twice", "activation", "3×3", "stride", "padding", "groups"],
)
def test_layers_with_something_between_them_stay(network: nn.Module) -> None:
    assert compose_linear(traced(network)) == []


def test_blocks_whose_middle_has_become_narrow_are_joined() -> None:
    """A projection and the expansion after it, when few hidden channels are left on both sides."""
    torch.manual_seed(0)
    network = BlockDetector(norms=False)
    network.blocks[1] = InvertedResidual(16, 16, 8, 2, norms=False)
    network.blocks[2] = InvertedResidual(16, 24, 8, norms=False)
    graph = traced(network.eval())
    before = graph(ONE)
    assert compose_linear(graph) == ["blocks.1.project"]
    for one, other in zip(graph(ONE), before, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert compose_linear(traced(plain_block_detector())) == []


@pytest.fixture(scope="module")
def faces() -> tuple[fx.GraphModule, fx.GraphModule]:
    """CenterFace and its fused student."""
    try:
        weights_file()
    except NotFound as error:
        pytest.skip(error.message)
    return traced(centerface()), traced(fused_centerface())


@pytest.mark.parametrize("size_wh", [(320, 256), (96, 160)])
def test_fused_centerface_gives_the_same_shapes(
    faces: tuple[fx.GraphModule, fx.GraphModule], size_wh: tuple[int, int]
) -> None:
    pictures = planes(1, size_wh[1], size_wh[0])
    shapes_of = [[tuple(value.shape) for value in network(pictures)] for network in faces]
    assert shapes_of[0] == shapes_of[1]


def test_fused_centerface_has_the_teachers_features_under_the_same_names(
    faces: tuple[fx.GraphModule, fx.GraphModule],
) -> None:
    """Also that of the blocks which it replaces."""
    teacher, student = (shapes(network, planes(1, 256, 320)) for network in faces)
    ends = [block_outputs(network) for network in faces]
    assert set(ends[1]) < set(ends[0])
    assert ends[1][:2] == ["conv_9", "add"]
    assert teacher["conv_9"] == teacher["add"] == (1, 24, 64, 80)
    assert all(teacher[name] == student[name] for name in ends[1])


def test_fused_centerface_costs_less_in_depthwise_layers(faces: tuple[fx.GraphModule, fx.GraphModule]) -> None:
    def depthwise(network: fx.GraphModule) -> float:
        costs = macs_by_layer(network, planes(1, 256, 320))
        return sum(cost for name, cost in costs.items() if network.get_submodule(name).groups > 1)

    assert depthwise(faces[1]) < 0.7 * depthwise(faces[0])


def test_fused_centerface_can_be_pruned(faces: tuple[fx.GraphModule, fx.GraphModule]) -> None:
    hidden = {group.name for group in find_groups(faces[1], planes(1, 64, 96), "hidden")}
    assert {"front_0", "front_2"} <= hidden
    assert "front_4" not in hidden
