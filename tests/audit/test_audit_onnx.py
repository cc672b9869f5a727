"""The audit of ONNX models: each fault is planted in a small model, and healthy ones have none."""

import contextlib

import numpy as np
import pytest
from onnx import TensorProto, helper
from programs import C, batch_norm, numbers, onnx_model, saved, statistics

import anynorm
from anynorm import AnynormError

WEIGHT = np.linspace(-1, 1, C * C, dtype=np.float32).reshape(C, C)
KERNEL = WEIGHT.reshape(C, C, 1, 1)
IMAGE = ("n", C, 5, 5)


def linear(x="x", y="h", weight="fc.weight"):
    return helper.make_node("Gemm", [x, weight], [y], name="fc", transB=1)


def conv(x="x", y="h", weight="conv.weight", **attributes):
    return helper.make_node("Conv", [x, weight], [y], name="conv", **attributes)


@pytest.mark.parametrize(
    ("version", "attributes", "training"),
    [
        (20, {"training_mode": 1, "outputs": ["y", "m", "v"]}, True),
        (14, {"training_mode": 1, "outputs": ["y", "m", "v"]}, True),
        (20, {}, False),
        (9, {"outputs": ["y", "m", "v", "a", "b"]}, True),
        (9, {}, False),
        (6, {}, True),
        (6, {"is_test": 1}, False),
    ],
)
def test_train_mode_is_read_as_each_version_writes_it(version, attributes, training):
    model = onnx_model([batch_norm(**attributes)], statistics(), version=version)
    found = anynorm.audit(model)
    assert (101 in numbers(found)) is training
    assert found.status == int(training)


def test_a_batch_norm_behind_a_product_can_be_folded():
    arrays = {"fc.weight": WEIGHT, **statistics()}
    found = anynorm.audit(onnx_model([linear(), batch_norm(x="h")], arrays))
    [one] = [f for f in found.findings if f.check == 102]
    assert (one.severity, one.layer) == ("warning", "bn")
    assert one.numbers["folds into"] == "the linear layer 'fc'"
    assert one.numbers["stored values saved"] == 3 * C


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (
            [conv(), batch_norm(x="h", y="b"), helper.make_node("Add", ["b", "h"], ["y"], "sum")],
            "the convolution 'conv' is also read by 'sum'",
        ),
        (
            [batch_norm(y="h"), conv(x="h", y="y", pads=[1, 1, 1, 1])],
            "the convolution 'conv' pads its input with zeros",
        ),
        (
            [conv(), conv("h", "k"), batch_norm(x="k")],
            "the weight of the convolution 'conv' is used elsewhere too",
        ),
        (
            [helper.make_node("Relu", ["x"], ["h"]), batch_norm(x="h")],
            "in front: the operator 'Relu'; behind: it is the output",
        ),
        (
            [
                helper.make_node("Add", ["conv.weight", "conv.weight"], ["w"]),
                conv(weight="w"),
                batch_norm(x="h"),
            ],
            "the weight of the convolution 'conv' is computed",
        ),
    ],
)
def test_why_a_batch_norm_stays_is_said(nodes, reason):
    model = onnx_model(nodes, {"conv.weight": KERNEL, **statistics()}, shape=IMAGE)
    found = anynorm.audit(model)
    [one] = [f for f in found.findings if f.check == 102]
    assert one.severity == "info"
    assert reason in one.message
    assert found.status == 0


def test_a_batch_norm_in_front_of_a_convolution_without_padding_can_be_folded():
    nodes = [batch_norm(y="h"), conv(x="h", y="y")]
    found = anynorm.audit(onnx_model(nodes, {"conv.weight": KERNEL, **statistics()}, shape=IMAGE))
    assert numbers(found) == {102}


def test_between_quantizations_folding_comes_first():
    """As quantization-aware training leaves a linear layer and its batch norm."""
    nodes = [
        helper.make_node("DequantizeLinear", ["fc.weight", "s", "z"], ["w"]),
        linear(weight="w"),
        helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        batch_norm(x="d"),
    ]
    scale = {"s": np.float32(0.1), "z": np.int8(0), "fc.weight": (10 * WEIGHT).astype(np.int8)}
    found = anynorm.audit(onnx_model(nodes, {**scale, **statistics()}))
    [one] = [f for f in found.findings if f.check == 102]
    assert one.severity == "warning"
    assert "values are quantized between the two" in one.message
    assert "before it is quantized" in one.fix


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({"running_var": np.array([1.0, np.nan, 1.0, 1.0], np.float32)}, 9),
        ({"running_var": np.array([1.0, -1.0, 1.0, 1.0], np.float32)}, 9),
        ({"running_var": np.full(C, 1e-7, np.float32)}, 10),
        ({"weight": np.zeros(C, np.float32)}, 20),
        ({"running_mean": np.zeros(C, np.float32), "running_var": np.ones(C, np.float32)}, 4),
    ],
)
def test_the_doctors_checks_read_stored_tensors(changed, check):
    found = anynorm.audit(onnx_model([batch_norm()], statistics(**changed)))
    assert check in numbers(found)
    assert found.findings[0].layer == "bn"


def test_statistics_in_16_bits_are_named():
    model = onnx_model([batch_norm()], statistics(kind=np.float16), kind=TensorProto.FLOAT16)
    assert numbers(anynorm.audit(model), "info") >= {26}


@pytest.mark.parametrize(("stash", "found"), [(1, False), (10, True)])
def test_the_type_of_a_layer_norms_statistics_is_read(stash, found):
    inputs = ["x", "ln.weight", "ln.bias"]
    node = helper.make_node("LayerNormalization", inputs, ["y"], stash_type=stash)
    arrays = {"ln.weight": np.ones(C, np.float32), "ln.bias": np.zeros(C, np.float32)}
    audit = anynorm.audit(onnx_model([node], arrays))
    assert (105 in numbers(audit)) is found
    assert audit.examined == ("ln",)


def rms_chain(kind, eps, gain=("ln.weight",)):
    """RMS norm as operators; `gain` are the operands of γ."""
    sums = [helper.make_node("Add", list(gain), ["g"])] if len(gain) > 1 else []
    return [
        *sums,
        helper.make_node("Mul", ["x", "x"], ["s"]),
        helper.make_node("ReduceMean", ["s", "axes"], ["m"]),
        helper.make_node("Add", ["m", "eps"], ["e"]),
        helper.make_node("Sqrt", ["e"], ["r"]),
        helper.make_node("Div", ["x", "r"], ["n"]),
        helper.make_node("Mul", ["n", "g" if sums else gain[0]], ["y"]),
    ], {"axes": np.array([-1]), "eps": kind(eps), "ln.weight": np.full(C, 0.5, kind)}


def test_a_chain_of_operators_is_recognized():
    nodes, arrays = rms_chain(np.float32, 1e-6)
    found = anynorm.audit(onnx_model(nodes, arrays))
    [one] = found.findings
    assert (one.check, one.severity, one.layer) == (107, "info", "ln")
    assert found.facts["families"] == {"rms": 1}
    assert found.status == 0


def test_a_chain_in_float16_loses_its_epsilon():
    nodes, arrays = rms_chain(np.float16, 1e-8)
    found = anynorm.audit(onnx_model(nodes, arrays, kind=TensorProto.FLOAT16))
    assert numbers(found) == {105, 106}


def test_a_gain_of_one_plus_w_is_read_as_it_multiplies():
    from anynorm.audit.norms import found_norms
    from anynorm.audit.onnx_file import read_onnx

    nodes, arrays = rms_chain(np.float32, 1e-6, gain=("one", "ln.weight"))
    [norm] = found_norms(read_onnx(onnx_model(nodes, {**arrays, "one": np.float32(1)})))
    assert norm.offset == 1.0
    assert norm.gain.tolist() == [1.5] * C


def test_a_square_root_alone_is_no_normalizer():
    nodes = [helper.make_node("Sqrt", ["x"], ["h"]), helper.make_node("Div", ["x", "h"], ["y"])]
    found = anynorm.audit(onnx_model(nodes, {}))
    assert found.facts["normalization layers"] == 0
    assert "no normalizers" in found.facts["note"]


def test_group_norm_as_instance_norm_of_a_view_is_group_norm():
    nodes = [
        helper.make_node("Reshape", ["x", "three"], ["v"]),
        helper.make_node("InstanceNormalization", ["v", "ones", "zeros"], ["i"], name="gn"),
        helper.make_node("Reshape", ["i", "four"], ["w"]),
        helper.make_node("Mul", ["w", "gn.weight"], ["m"]),
        helper.make_node("Add", ["m", "gn.bias"], ["y"]),
    ]
    affine = np.arange(1, C + 1, dtype=np.float32).reshape(C, 1, 1)
    arrays = {
        "three": np.array([0, 2, -1]),
        "four": np.array([-1, C, 5, 5]),
        "ones": np.ones(2, np.float32),
        "zeros": np.zeros(2, np.float32),
        "gn.weight": affine,
        "gn.bias": affine,
    }
    found = anynorm.audit(onnx_model(nodes, arrays, shape=IMAGE))
    assert found.facts["families"] == {"group": 1}
    assert found.status == 0


def test_an_unknown_normalizer_is_not_examined():
    nodes = [helper.make_node("AcmeNorm", ["x"], ["y"], name="acme", domain="acme")]
    found = anynorm.audit(onnx_model(nodes, {}))
    assert found.status == 3
    assert "AcmeNorm" in found.not_examined["acme"]


def test_operators_in_branches_are_read():
    then = helper.make_graph(
        [batch_norm(training_mode=1, outputs=["t", "m", "v"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["t2"])],
        "else",
        [],
        [helper.make_tensor_value_info("t2", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    found = anynorm.audit(onnx_model([node], {"c": np.array(True), **statistics()}))
    assert 101 in numbers(found)


def test_weights_beside_the_model_are_read(tmp_path):
    import onnx

    model = onnx_model([batch_norm()], statistics(running_var=np.full(C, np.nan, np.float32)))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    assert 9 in numbers(anynorm.audit(path))
    (tmp_path / "weights").unlink()
    with pytest.raises(AnynormError, match=r"the tensor 'bn\.\w+' of the model cannot be read"):
        anynorm.audit(path)


def test_weights_are_not_read_from_other_folders(tmp_path):
    import onnx

    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_bytes(bytes(64))
    model = onnx_model([batch_norm()], statistics())
    for one in model.graph.initializer:
        onnx.external_data_helper.set_external_data(one, "../secret", 0, 16)
        one.ClearField("raw_data")
    path = saved(model, tmp_path / "folder" / "model.onnx")
    with pytest.raises(AnynormError, match="cannot be read"):
        anynorm.audit(path)


def test_files_that_are_no_model_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(AnynormError, match="cannot be read as ONNX"):
        anynorm.audit(path)
    path.write_bytes(b"")
    with pytest.raises(AnynormError, match="has no operators"):
        anynorm.audit(path)
    with pytest.raises(AnynormError, match="does not exist"):
        anynorm.audit(tmp_path / "other.onnx")
    with pytest.raises(AnynormError, match="is a folder"):
        anynorm.audit(tmp_path)
    with pytest.raises(AnynormError, match="give a file whose name ends in"):
        anynorm.audit(42)


def test_operators_in_a_circle_do_no_harm():
    for kind in ("Identity", "Cast", "Sqrt", "ReduceMean"):
        circle = [helper.make_node(kind, [a], [b]) for a, b in (("p", "q"), ("q", "p"), ("r", "r"))]
        more = [linear("p", "h", "q"), batch_norm(x="r"), helper.make_node("Sqrt", ["p"], ["s"])]
        found = anynorm.audit(onnx_model([*circle, *more], statistics()))
        assert found.facts["families"] == {"batch": 1}


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    path = saved(onnx_model([batch_norm()], statistics()), tmp_path / "model.onnx")
    monkeypatch.setattr("anynorm.audit.onnx_file.find_spec", lambda _: None)
    with pytest.raises(AnynormError, match=r"pip install 'anynorm\[onnx\]'"):
        anynorm.audit(path)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_give_an_audit_or_our_error(tmp_path, seed):
    random = np.random.default_rng(seed)
    nodes = [linear(), batch_norm(x="h")]
    whole = onnx_model(nodes, {"fc.weight": WEIGHT, **statistics()}).SerializeToString()
    for _ in range(100):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=random.integers(1, 6)):
            damaged[place] = random.integers(256)
        (tmp_path / "model.onnx").write_bytes(damaged)
        with contextlib.suppress(AnynormError):
            anynorm.audit(tmp_path / "model.onnx").to_dict()
