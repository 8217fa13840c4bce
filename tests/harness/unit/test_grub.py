"""GRUB's settings: parameters go where they count, in every form that the files may have, and no
other byte changes. bash says what the shell makes of it."""

import subprocess

import pytest

from deepops_fixtures.errors import UsageProblem
from deepops_fixtures.passthrough import grub
from deepops_fixtures.passthrough.kernel_line import Parameter, cmdline_parameters

ON, PT = Parameter("intel_iommu", "on", against=frozenset({"off"})), Parameter("iommu", "pt")
GRUB = "GRUB_CMDLINE_LINUX_DEFAULT"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f'{GRUB}="quiet splash"\n', f'{GRUB}="quiet splash intel_iommu=on iommu=pt"\n'),
        (f"{GRUB}='quiet'\n", f"{GRUB}='quiet intel_iommu=on iommu=pt'\n"),
        (f"{GRUB}=quiet\n", f'{GRUB}="quiet intel_iommu=on iommu=pt"\n'),
        (f'{GRUB}=""\n', f'{GRUB}="intel_iommu=on iommu=pt"\n'),
        (f"{GRUB}=''\n", f"{GRUB}='intel_iommu=on iommu=pt'\n"),
        (f"{GRUB}=\n", f'{GRUB}="intel_iommu=on iommu=pt"\n'),
        (f"{GRUB}=", f'{GRUB}="intel_iommu=on iommu=pt"'),
        ("A=1\n", f'A=1\n{GRUB}="intel_iommu=on iommu=pt"\n'),
        ("A=1", f'A=1\n{GRUB}="intel_iommu=on iommu=pt"\n'),
        (f'#{GRUB}="a"\n', f'#{GRUB}="a"\n{GRUB}="intel_iommu=on iommu=pt"\n'),
        (f'{GRUB}="a" # why\n', f'{GRUB}="a intel_iommu=on iommu=pt" # why\n'),
        (f'{GRUB}="a"; B=1\n', f'{GRUB}="a intel_iommu=on iommu=pt"; B=1\n'),
        (f'export {GRUB}="a"\n', f'export {GRUB}="a intel_iommu=on iommu=pt"\n'),
        (f'{GRUB}="a "\n', f'{GRUB}="a intel_iommu=on iommu=pt"\n'),
        (f'{GRUB}="a"\n{GRUB}="b"\n', f'{GRUB}="a"\n{GRUB}="b intel_iommu=on iommu=pt"\n'),
        (f'{GRUB}="a\nb"\nC=1\n', f'{GRUB}="a\nb intel_iommu=on iommu=pt"\nC=1\n'),
        (f"{GRUB}=\"quiet\"' x'\n", f"{GRUB}=\"quiet\"' x intel_iommu=on iommu=pt'\n"),
        (f"{GRUB}=a\\ b\n", f'{GRUB}=a\\ b" intel_iommu=on iommu=pt"\n'),
        (f'{GRUB}="dyndbg=\\"a b\\""\n', f'{GRUB}="dyndbg=\\"a b\\" intel_iommu=on iommu=pt"\n'),
        (f'{GRUB}="intel_iommu=off a"\n', f'{GRUB}="intel_iommu=on a iommu=pt"\n'),
        (f'{GRUB}="iommu=pt a"\n', f'{GRUB}="iommu=pt a intel_iommu=on"\n'),
        (
            f'{GRUB}="a"\n{GRUB}="${GRUB} b"\n',
            f'{GRUB}="a intel_iommu=on iommu=pt"\n{GRUB}="${GRUB} b"\n',
        ),
        (f'{GRUB}="a"\n{GRUB}+=" b"\n', f'{GRUB}="a intel_iommu=on iommu=pt"\n{GRUB}+=" b"\n'),
        (
            f'GRUB_CMDLINE_LINUX="intel_iommu=off"\n{GRUB}="a"\n',
            f'GRUB_CMDLINE_LINUX="intel_iommu=off"\n{GRUB}="a intel_iommu=on iommu=pt"\n',
        ),
    ],
)
def test_parameters_go_into_the_assignment_that_counts_and_nothing_else_changes(before, after):
    assert grub.with_parameters({grub.DEFAULTS: before}, [ON, PT]) == {grub.DEFAULTS: after}
    for text in (before, after):
        script = f'{text}\nprintf %s "${GRUB}"'
        shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert grub.values({grub.DEFAULTS: text})[GRUB] == shell.stdout


@pytest.mark.parametrize(
    "text",
    [
        f'{GRUB}="iommu=pt intel_iommu=on"\n',
        f'{GRUB}="intel_iommu=on,sm_on iommu=nobypass,pt"\n',
        f'GRUB_CMDLINE_LINUX="intel_iommu=on iommu=pt"\n{GRUB}="quiet"\n',
        f"{GRUB}='intel_iommu=off intel_iommu=on iommu=pt'\n",
    ],
)
def test_parameters_that_hold_already_change_nothing(text):
    assert grub.with_parameters({grub.DEFAULTS: text}, [ON, PT]) == {}


def test_the_file_of_grub_d_that_has_the_last_word_is_edited():
    cloud, kdump = f"{grub.DROP_INS}/50-cloud.cfg", f"{grub.DROP_INS}/60-kdump.cfg"
    sources = {
        grub.DEFAULTS: f'{GRUB}="quiet"\n',
        cloud: f'{GRUB}="console=ttyS0"\n',
        kdump: f'{GRUB}="${{{GRUB}}} crashkernel=512M"\n',
    }
    changed = grub.with_parameters(sources, [ON, PT])
    assert changed == {cloud: f'{GRUB}="console=ttyS0 intel_iommu=on iommu=pt"\n'}
    line = grub.command_line({**sources, **changed})
    assert line == "console=ttyS0 intel_iommu=on iommu=pt crashkernel=512M"


def test_one_variable_may_stand_in_the_other():
    text = f'GRUB_CMDLINE_LINUX="intel_iommu=off"\n{GRUB}="iommu=pt $GRUB_CMDLINE_LINUX"\n'
    assert grub.command_line({grub.DEFAULTS: text}) == "intel_iommu=off iommu=pt intel_iommu=off"
    changed = grub.with_parameters({grub.DEFAULTS: text}, [ON, PT])[grub.DEFAULTS]
    assert changed.endswith('"iommu=pt $GRUB_CMDLINE_LINUX intel_iommu=on"\n')


def test_a_later_line_that_says_the_opposite_is_refused():
    text = f'{GRUB}="a"\n{GRUB}="${GRUB} intel_iommu=off"\n'
    with pytest.raises(UsageProblem, match="or against these parameters further below"):
        grub.with_parameters({grub.DEFAULTS: text}, [ON])


@pytest.mark.parametrize(
    "text",
    [
        f'if true; then\n  {GRUB}="a"\nfi\n',
        f'test -e /x && {GRUB}="a"\n',
        f'{GRUB}="$(cat /etc/kernel/cmdline)"\n',
        f"{GRUB}=`cat /etc/kernel/cmdline`\n",
    ],
)
def test_a_value_that_is_set_in_a_condition_or_computed_is_refused(text):
    with pytest.raises(UsageProblem, match="in a way that is not understood") as caught:
        grub.with_parameters({grub.DEFAULTS: text}, [ON, PT])
    assert "add 'intel_iommu=on iommu=pt' to it by hand" in caught.value.hint


def test_a_quote_that_is_never_closed_is_refused_with_its_line():
    with pytest.raises(UsageProblem, match="A quote in line 2 of '/etc/default/grub'"):
        grub.with_parameters({grub.DEFAULTS: f'A=1\n{GRUB}="quiet\n'}, [ON])


def test_words_of_a_command_line_are_told_apart_by_name_and_order():
    assert cmdline_parameters('ro a=1 vfio-pci.ids=x a=2,3 b="c d"') == {
        "ro": ("",),
        "a": ("1", "2,3"),
        "vfio_pci.ids": ("x",),
        "b": ("c d",),
    }
