import copy

from tests.unit.simulator.graphs import Graph, flat, node, text_to_image

from comfy_api_service.simulator.graph import Schedule, signatures


def order(graph: Graph, outputs: list[str], cached: frozenset[str] = frozenset()) -> list[str]:
    saving = {n for n, content in graph.items() if content["class_type"].startswith(("Save", "Preview"))}
    schedule = Schedule(graph, saving.__contains__, cached.__contains__)
    for output in outputs:
        schedule.add(output)
    found = []
    while schedule:
        chosen = schedule.next()
        assert chosen is not None
        found.append(chosen)
        schedule.done(chosen)
    return found


def test_text_to_image_runs_in_the_order_of_real_servers() -> None:
    assert order(text_to_image(), ["9"]) == ["4", "5", "7", "6", "3", "8", "9"]


def test_cached_nodes_are_left_out() -> None:
    assert order(text_to_image(), ["9"], frozenset({"4", "5", "6", "7"})) == ["3", "8", "9"]


def test_a_cached_output_is_visited_to_tell_its_files() -> None:
    assert order(flat(), ["2"], frozenset({"1", "2"})) == ["2"]


def test_an_output_goes_before_other_ready_nodes() -> None:
    graph = flat() | {"3": node("ImageInvert", image=["1", 0]), "4": node("PreviewImage", images=["3", 0])}
    assert order(graph, ["2", "4"]) == ["1", "2", "3", "4"]


def test_a_cycle_leaves_nothing_to_run() -> None:
    graph = {"1": node("ImageInvert", image=["2", 0]), "2": node("ImageInvert", image=["1", 0])}
    schedule = Schedule(graph, lambda _: False, lambda _: False)
    schedule.add("1")
    assert schedule.next() is None


def test_a_signature_depends_on_everything_above_and_on_no_name() -> None:
    one = signatures(text_to_image(), lambda _: "")
    other = signatures(text_to_image(seed=2), lambda _: "")
    changed = {n for n in one if one[n] != other[n]}
    assert changed == {"3", "8", "9"}
    renamed = {f"n{k}": v for k, v in copy.deepcopy(flat()).items()}
    renamed["n2"]["inputs"]["images"] = ["n1", 0]
    assert signatures(renamed, lambda _: "")["n2"] == signatures(flat(), lambda _: "")["2"]


def test_a_signature_changes_with_what_a_file_holds() -> None:
    graph = flat()
    before = signatures(graph, lambda _: "")
    after = signatures(graph, lambda n: "new content" if n == "1" else "")
    assert before["2"] != after["2"]


def test_signatures_of_a_cycle_and_of_a_long_chain_end() -> None:
    graph = {"1": node("ImageInvert", image=["2", 0]), "2": node("ImageInvert", image=["1", 0])}
    assert set(signatures(graph, lambda _: "")) == {"1", "2"}
    chain = {str(i): node("ImageInvert", image=[str(i + 1), 0]) for i in range(5000)}
    assert len(signatures(chain, lambda _: "")) == 5000


def test_two_nodes_with_the_same_source_both_get_its_signature() -> None:
    graph = {
        "1": node("ImageBatch", image1=["2", 0], image2=["3", 0]),
        "2": node("ImageInvert", image=["3", 0]),
        "3": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
    }
    changed = copy.deepcopy(graph)
    changed["3"]["inputs"]["color"] = 5
    first, second = signatures(graph, lambda _: ""), signatures(changed, lambda _: "")
    assert all(first[n] != second[n] for n in graph)
