"""What torchrun and Slurm put into the environment, as a process's place among the others."""

import pytest

from tapetum.system.launcher import launched, process_rank

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_STEP_NODELIST": "gpu[03-05]",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
}


@pytest.fixture
def environment(monkeypatch):
    for name in (*TORCHRUN, *SRUN, "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)

    def put(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def test_alone(environment):
    assert launched() is None
    assert process_rank() == 0
    environment(LOCAL_RANK="3")  # as Fabric numbers the processes that it starts
    assert launched() is None
    assert process_rank() == 3


def test_torchrun(environment):
    environment(**TORCHRUN)
    place = launched()
    assert (place.by, place.rank, place.world_size, place.local_rank, place.local_size) == ("torchrun", 5, 8, 1, 4)
    assert (place.address, place.port, place.threads) == ("node7", 29500, None)
    assert process_rank() == 5
    environment(OMP_NUM_THREADS="3")
    assert launched().threads == 3


def test_srun_over_nodes_with_differing_numbers_of_tasks(environment):
    environment(**SRUN)
    place = launched()
    assert (place.by, place.rank, place.world_size, place.local_rank, place.local_size) == ("srun", 4, 5, 0, 1)
    assert (place.address, place.threads) == ("gpu03", None)
    assert process_rank() == 4
    ports = {place.port}
    environment(SLURM_STEP_ID="3", SLURM_CPUS_PER_TASK="6")
    ports.add(launched().port)
    assert len(ports) == 2
    assert all(1024 <= port < 32768 for port in ports)
    assert launched().threads == 6
    environment(SLURM_NODEID="1", MASTER_ADDR="elsewhere", MASTER_PORT="1234", OMP_NUM_THREADS="2")
    place = launched()
    assert (place.local_size, place.address, place.port, place.threads) == (2, "elsewhere", 1234, 2)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[3,9-12],big1", "gpu3"), ("a1,a2", "a1"), ("rack2-[07]", "rack2-07"), ("n[1-2]-ib,n9", "n1-ib")],
)
def test_rank_0_is_on_the_first_node(environment, nodes, first):
    environment(**SRUN | {"SLURM_STEP_NODELIST": nodes})
    assert launched().address == first


def test_a_single_task_and_a_batch_script_are_started_alone(environment):
    """One gets onto a node by srun, and a recipe for two devices starts two processes there."""
    environment(**SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "5"})
    assert launched() is None
    assert process_rank() == 0
