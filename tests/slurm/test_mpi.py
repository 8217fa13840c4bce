"""MPI over Slurm's own launcher and PMIx."""

import pytest

from deepops_fixtures.checks import remote

pytestmark = pytest.mark.slurm

#: Where the deployment puts a program that says hello from each rank and adds the ranks up.
HELLO = "/sw/deepops-fixtures/mpi_hello.py"


def test_mpi_ranks_on_all_nodes_reach_one_another(two_fit_nodes, working_slurm):
    if not remote.run(two_fit_nodes[0], f"test -x {HELLO}").ok:
        pytest.skip(f"the cluster has no {HELLO}")
    count = len(two_fit_nodes)
    said = working_slurm.run(
        HELLO,
        "--mpi=pmix",
        f"--nodes={count}",
        f"--ntasks={count}",
        "--ntasks-per-node=1",
        "--mem=200M",
        seconds=150,
    ).splitlines()
    ranks = sorted(line for line in said if line.startswith("rank "))
    where = {line.rpartition(" ")[2].partition(".")[0] for line in ranks}
    assert [line.split()[1:4] for line in ranks] == [
        [str(rank), "of", str(count)] for rank in range(count)
    ], f"The ranks did not find one another:\n{chr(10).join(said)}"
    assert where == {node.name for node in two_fit_nodes}
    assert f"sum {count * (count - 1) // 2}" in said, said
