"""The doctor on the host itself: processor, programs, libvirt, groups, box, room; the report, and
the preflight of a run."""

import os
import pwd

import libvirt
import psutil
import pytest

from deepops_fixtures.cluster import hypervisor
from deepops_fixtures.cluster.accelerator import Verdict as Accelerator
from deepops_fixtures.cluster.box import Box
from deepops_fixtures.doctor import capacity, cpu, preflight, refuse_unready, run, tools
from deepops_fixtures.doctor.model import Check, Question, Report, fail, ok
from deepops_fixtures.errors import ProvisionError, UsageProblem
from tests.harness.unit.doctors import ask, case
from tests.harness.unit.fakes import refusal
from tests.harness.unit.pci_trees import HostTree


@pytest.fixture
def tree(tmp_path):
    return HostTree(tmp_path / "host").cpu("vmx")


@pytest.fixture
def user(monkeypatch):
    """A user of group 1000 alone, who is not root."""
    record = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [1000])
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: record)
    return record.pw_name


@pytest.fixture
def deaf(monkeypatch):
    """A libvirt that does not answer."""

    def refuse(_uri):
        raise refusal("Failed to connect socket to '/run/libvirt/libvirt-sock'")

    monkeypatch.setattr(libvirt, "open", refuse)


def settings_of(tmp_path, **more) -> dict:
    return {"state_dir": tmp_path / "state", "cache_dir": tmp_path / "cache", **more}


# -- the processor and KVM ------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["vmx", "svm"])
def test_the_processors_flag_is_seen(tree, flag):
    assert ask(tree.cpu(flag), "cpu-flags").detail.startswith(f"the processor has {flag}")


def test_without_the_flag_machines_are_emulated(tree):
    tree.cpu("")
    check = ask(tree, "cpu-flags")
    assert (check.status, "many times slower" in check.detail) == ("warn", True)
    assert ask(tree, "cpu-flags", accelerator="kvm").status == "fail"
    assert ask(tree, "cpu-flags", accelerator="tcg").status == "ok"


def test_a_virtual_machine_is_let_nest_others_by_its_host(tree):
    tree.file("/proc/cpuinfo", "processor: 0\nflags: fpu hypervisor\n")
    assert "kvm_intel nested=1" in ask(tree, "cpu-flags").fix


def test_a_tree_without_cpuinfo_is_not_judged_by_it(tmp_path):
    assert ask(HostTree(tmp_path / "bare"), "cpu-flags").status == "skip"


@pytest.mark.parametrize(
    ("kind", "reason", "status", "fix"),
    [
        ("kvm", "a guest's kernel started in 1.2 s", "ok", ""),
        ("tcg", "/dev/kvm does not exist", "warn", "modprobe kvm_intel"),
        (
            "tcg",
            "this user may not open /dev/kvm (join group kvm: ./setup.sh)",
            "warn",
            "setup.sh",
        ),
        ("tcg", "/dev/kvm opens, but a guest dies under it: x", "warn", "accelerator tcg"),
    ],
)
def test_a_guest_is_started_under_kvm(tree, monkeypatch, kind, reason, status, fix):
    found = Accelerator(kind=kind, reason=reason)
    monkeypatch.setattr(cpu, "choose_accelerator", lambda _settings: found)
    verdict = cpu.guest(case(tree))
    assert (verdict.status, reason in verdict.detail, fix in verdict.fix) == (status, True, True)


def test_no_guest_is_started_for_a_saved_tree(tree):
    check = ask(tree, "kvm-guest")
    assert (check.status, "not a saved tree" in check.detail) == ("skip", True)


# -- programs -------------------------------------------------------------------------------


def test_missing_programs_are_named(tree, programs):
    programs(vagrant="", ssh="", qemu_img="")
    verdict = tools.programs(case(tree))
    assert (verdict.status, verdict.detail, verdict.fix) == (
        "fail",
        "Command 'qemu-system-x86_64' not found.",
        "./setup.sh",
    )
    programs(qemu_system_x86_64="")
    assert tools.programs(case(tree)).status == "ok"


VAGRANT = 'if [ "$1" = --version ]; then echo "Vagrant {}"; else echo "{}"; fi'


@pytest.mark.parametrize(
    ("version", "plugins", "status", "said"),
    [
        ("2.3.4", "vagrant-libvirt (0.11.2, system)", "ok", "0.11.2 (system)"),
        ("2.3.4", "vagrant-share (1.0, global)", "fail", "no plugin 'vagrant-libvirt'"),
        ("unknown", "", "fail", "names no version"),
    ],
)
def test_vagrant_is_asked_for_both_versions(tree, programs, version, plugins, status, said):
    programs(vagrant=VAGRANT.format(version, plugins))
    verdict = tools.versions(case(tree))
    assert (verdict.status, said in verdict.detail) == (status, True), verdict.detail


def test_without_vagrant_its_version_is_not_asked(tree, programs):
    assert tools.versions(case(tree)).status == "skip"


@pytest.mark.parametrize(
    ("vagrant", "plugin", "origin", "status"),
    [
        ("2.2.19", "0.7.0", "system", "ok"),
        ("2.3.4", "0.11.2", "system", "ok"),
        ("2.3.4", "0.12.2", "global", "ok"),
        ("2.3.7", "0.12.2", "system", "ok"),
        ("2.4.1", "0.12.2", "global", "ok"),
        ("2.4.9", "0.12.2", "global", "ok"),
        ("2.2.14", "0.12.2", "global", "fail"),
        ("2.3.4", "0.0.45", "system", "fail"),
        ("2.3.5", "0.12.2", "global", "fail"),
        ("2.4.0", "0.12.2", "global", "fail"),
        ("2.4.2", "0.12.2", "global", "fail"),
    ],
)
def test_versions_that_do_not_work_together_are_known(vagrant, plugin, origin, status):
    verdict = tools.judge(vagrant, plugin, origin)
    assert (verdict.status, bool(verdict.fix)) == (status, status == "fail")


# -- libvirt and the groups -----------------------------------------------------------------


def test_libvirt_answers(tree, connection):
    assert tools.libvirt(case(tree)).detail == (
        "libvirt 9.0.0 answers this user at qemu:///system"
    )


def test_a_libvirt_that_does_not_run_has_no_socket(tree, deaf):
    verdict = tools.libvirt(case(tree))
    assert (verdict.status, "there is no /run/libvirt/libvirt-sock" in verdict.detail) == (
        "fail",
        True,
    )
    assert "systemctl enable --now libvirtd" in verdict.fix


def test_a_socket_that_this_user_may_not_open_is_named(tree, deaf, monkeypatch):
    tree.file("/run/libvirt/virtqemud-sock", "")
    assert (
        tools.libvirt(case(tree)).fix
        == "./setup.sh   (installs and starts libvirt, joins the libvirt group)"
    )
    monkeypatch.setattr(os, "access", lambda *_: False)
    verdict = tools.libvirt(case(tree))
    assert "may not open /run/libvirt/virtqemud-sock" in verdict.detail


GROUPS = "root:x:0:\nlibvirt:x:64055:{}\nkvm:x:104:{}\n"


def test_a_group_joined_after_the_login_is_not_in_it(tree, user, deaf):
    tree.file("/etc/group", GROUPS.format(user, user))
    verdict = tools.groups(case(tree))
    assert verdict.status == "fail"
    assert verdict.detail == (
        f"user '{user}' is in 'libvirt' and 'kvm' in the group file, but not in this login"
    )
    assert verdict.fix == "log in again, or run it through: ./setup.sh COMMAND"


def test_a_group_that_was_never_joined_is_named(tree, user, deaf):
    tree.file("/etc/group", GROUPS.format("other", ""))
    verdict = tools.groups(case(tree))
    assert (verdict.status, "is not in 'libvirt' (libvirt's socket)" in verdict.detail) == (
        "fail",
        True,
    )
    assert f"sudo usermod -aG libvirt,kvm {user}" in verdict.fix


def test_where_libvirt_answers_all_the_same_a_group_is_not_missed(tree, user, connection):
    tree.file("/etc/group", GROUPS.format("", ""))
    assert tools.groups(case(tree)).status == "warn"


def test_groups_of_this_login_count(tree, user, monkeypatch):
    tree.file("/etc/group", GROUPS.format("", ""))
    monkeypatch.setattr(os, "getgroups", lambda: [1000, 104, 64055])
    assert tools.groups(case(tree)).detail == f"user '{user}' is in libvirt and kvm"


def test_root_needs_no_group(tree, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert tools.groups(case(tree)).status == "ok"


# -- the box and the room -------------------------------------------------------------------


def test_the_box_is_there_or_can_be_built(tree, tmp_path, programs):
    examined = case(tree, **settings_of(tmp_path))
    assert "'mmdebstrap' is not here" in tools.box(examined).detail
    programs(mmdebstrap="")
    assert "not built yet" in tools.box(examined).detail
    made = Box("debian12", tmp_path / "cache").path
    made.parent.mkdir(parents=True)
    made.touch()
    assert tools.box(examined).detail.startswith("box 'debian12' is built")


def test_a_box_of_others_is_in_vagrants_list_or_downloaded(tree, tmp_path, programs):
    examined = case(tree, **settings_of(tmp_path))
    spec = examined.spec.model_copy(update={"box": "generic/debian12"})
    foreign = tools.Case(examined.host, examined.settings, spec)
    programs(vagrant="")
    verdict = tools.box(foreign)
    assert (verdict.status, verdict.fix) == (
        "warn",
        "vagrant box add --provider libvirt generic/debian12",
    )
    unknown = examined.spec.model_copy(update={"box": "debian13"})
    verdict = tools.box(tools.Case(examined.host, examined.settings, unknown))
    assert (verdict.status, "neither a recipe" in verdict.detail) == ("fail", True)
    programs(vagrant="echo '1,,box-name,generic/debian12'; echo '1,,box-provider,libvirt'; "
                     "echo '1,,box-version,4'")  # fmt: skip
    assert tools.box(foreign).status == "ok"


def test_more_virtual_cpus_than_processors_take_turns(tree):
    assert ask(tree.cpu("vmx", count=5), "cpus").status == "ok"
    check = ask(tree.cpu("vmx", count=2), "cpus")
    assert (check.status, check.detail) == (
        "warn",
        "CPUs: 5 in the nodes, 2 on this host; they take turns",
    )


@pytest.fixture
def roomy(tree, tmp_path, connection, monkeypatch):
    """A host with memory, disk and subnets enough."""
    monkeypatch.setattr(hypervisor, "subnets_in_use", list)
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: type("Memory", (), {"available": 64 * 1024**3})()
    )
    return case(tree, **settings_of(tmp_path, accelerator="tcg"))


def test_room_and_subnets_are_found(roomy):
    assert capacity.room(roomy).status == "ok"
    assert capacity.subnets(roomy).detail == "10.86.1.0/24 and 10.87.1.0/24 are free"


def test_too_little_memory_or_disk_is_refused(roomy, connection, monkeypatch):
    monkeypatch.setattr(hypervisor, "pool_space", lambda: (None, 10**9))
    assert "may grow to 24.0 GiB on disk" in capacity.room(roomy).detail
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1024**3})()
    )
    verdict = capacity.room(roomy)
    assert (verdict.status, "needs 7.0 GiB of memory" in verdict.detail) == ("fail", True)


def test_room_that_others_will_make_is_waited_for(roomy, book, ledger, monkeypatch):
    monkeypatch.setattr(hypervisor, "pool_space", lambda: (None, 10**9))
    book.write(ledger("other"))
    verdict = capacity.room(roomy)
    assert (verdict.status, "A run would wait for 'other'." in verdict.detail) == ("warn", True)


def test_subnets_that_are_all_in_use_are_a_failure(roomy, monkeypatch):
    monkeypatch.setattr(hypervisor, "subnets_in_use", lambda: [capacity.instance._CLUSTER_SPACE])
    (check,) = run.examine(roomy, [Question("subnets", capacity.subnets)])
    assert (check.status, "Every /24 of 10.86.0.0/16 is in use" in check.detail) == ("fail", True)


# -- the report and the preflight -----------------------------------------------------------


def test_a_check_that_breaks_is_a_failure_and_takes_no_other_with_it(tree):
    def broken(_case):
        raise ValueError("no number")

    def refused(_case):
        raise ProvisionError("libvirt could not do it.", hint="./setup.sh --check")

    questions = [Question("a", broken), Question("b", refused), Question("c", lambda _: ok("x"))]
    first, second, third = run.examine(case(tree), questions)
    assert (first.status, first.detail) == (
        "fail",
        "the check itself broke: ValueError: no number",
    )
    assert (second.detail, second.fix) == ("libvirt could not do it.", "./setup.sh --check")
    assert third.status == "ok"


def test_a_warning_does_not_keep_a_host_from_being_ready():
    checks = [Check(name=status, status=status, detail="") for status in ("ok", "warn", "skip")]
    assert Report(checks=checks).ok
    assert not Report(checks=[*checks, Check(name="x", status="fail", detail="")]).ok


def test_what_fails_before_a_run_is_one_refusal_with_every_fix():
    bad = Check(name="libvirt", status="fail", detail="It does not run.", fix="start it")
    other = Check(name="box", status="fail", detail="It is gone.", fix="build it")
    good = Check(name="groups", status="warn", detail="", fix="log in again")
    refuse_unready([good])
    with pytest.raises(UsageProblem, match=r"^It does not run.\nNext: start it$"):
        refuse_unready([good, bad])
    with pytest.raises(UsageProblem) as caught:
        refuse_unready([bad, good, other])
    assert caught.value.message == "This host is not ready: 2 checks fail."
    assert caught.value.detail.splitlines() == [
        "libvirt: It does not run.", "  Next: start it", "box: It is gone.", "  Next: build it",
    ]  # fmt: skip


def test_the_preflight_asks_what_a_run_needs_and_starts_nothing(tmp_path, monkeypatch, roomy):
    def no_guest(_case):
        raise AssertionError("a guest was started")

    monkeypatch.setattr(run, "QUESTIONS", (
        Question("slow", no_guest, preflight=False),
        Question("host", lambda _: fail("bad", "mend it")),
        Question("passthrough", lambda _: ok("seen"), about="passthrough"),
    ))  # fmt: skip
    asking = roomy.settings.model_copy(update={"gpu": "auto"})
    assert [item.name for item in preflight(roomy.settings, roomy.spec)] == ["host"]
    assert [item.name for item in preflight(asking, roomy.spec)] == ["host", "passthrough"]


def test_names_of_checks_are_unique():
    names = [question.name for question in run.QUESTIONS]
    assert len(names) == len(set(names))
