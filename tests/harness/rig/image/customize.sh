#!/bin/sh
# Runs in the rig's new root file system while its image is built. The builder has put into /rig: this project's Python
# packages (site), the rig's key (id_ed25519.pub), the key of Vagrant boxes (vagrant.pub), guest.sh and guest-init.
set -eu

install -d -m 0700 /root/.ssh
install -m 0600 /rig/id_ed25519.pub /root/.ssh/authorized_keys
echo rig > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 rig\n' > /etc/hosts
printf '/dev/vda1 / ext4 defaults,noatime,errors=remount-ro 0 1\n' > /etc/fstab
# QEMU lets nothing out of the rig and so gives it no way out; a host has one, and the route is there to be seen.
cat > /etc/systemd/network/10-way-out.network <<'NET'
[Match]
Driver=virtio_net

[Network]
DHCP=ipv4
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
NET
systemctl enable systemd-networkd.service
printf 'UseDNS no\nPrintMotd no\nPrintLastLog no\nPasswordAuthentication no\n' > /etc/ssh/sshd_config.d/10-rig.conf
sed -i '/pam_motd\|pam_mail\|pam_systemd/d' /etc/pam.d/sshd /etc/pam.d/common-session

# The first variable is what its owner set: Debian's kernel would use the IOMMU by itself, others' have to be told, and
# this one was told not to. The second is what makes an emulated machine bearable.
cat > /etc/default/grub <<'GRUB'
# If you change this file, run 'update-grub' afterwards to update /boot/grub/grub.cfg.
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_RECORDFAIL_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=off"
GRUB_CMDLINE_LINUX="console=ttyS0,115200 fsck.mode=skip mitigations=off SYSTEMD_SECCOMP=0 init_on_alloc=0 apparmor=0 audit=0 nokaslr randomize_kstack_offset=off cryptomgr.notests random.trust_cpu=on tsc=reliable nowatchdog rcupdate.rcu_expedited=1"
GRUB_TERMINAL="serial console"
GRUB_SERIAL_COMMAND="serial --speed=115200"
GRUB_DISABLE_OS_PROBER=true
GRUB_DISABLE_RECOVERY=true
GRUB_DISABLE_LINUX_UUID=true
GRUB_DEVICE=/dev/vda1
GRUB

# The drivers of the devices that are handed through are in the initial RAM disk, as a distribution has them there: they
# are the first to see the devices, unless vfio-pci is made to come before them.
sed -i -e 's/^MODULES=.*/MODULES=list/' -e 's/^# COMPRESSLEVEL=.*/COMPRESSLEVEL=1/' /etc/initramfs-tools/initramfs.conf
printf '%s\n' virtio_pci virtio_blk ext4 e1000e nvme > /etc/initramfs-tools/modules
update-initramfs -u -k all

systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer \
  fstrim.timer man-db.timer systemd-pstore.service modprobe@drm.service modprobe@dm_mod.service modprobe@loop.service \
  modprobe@efi_pstore.service systemd-binfmt.service sys-kernel-debug.mount sys-kernel-tracing.mount \
  systemd-networkd-wait-online.service
# libvirt starts when somebody asks for it, by its socket.
systemctl disable libvirtd.service libvirt-guests.service virtlogd.service systemd-timesyncd.service || true
systemctl enable libvirtd.socket

# The project's own code is put into /opt/deepops-fixtures once the rig runs.
python3 -m venv --system-site-packages --without-pip /opt/venv
cp -r /rig/site/. /opt/venv/lib/python3.11/site-packages/
echo /opt/deepops-fixtures > /opt/venv/lib/python3.11/site-packages/deepops-fixtures.pth
/opt/venv/bin/python -m compileall -q /opt/venv/lib/python3.11/site-packages /usr/lib/python3/dist-packages || true
cat > /opt/venv/bin/deepops-virtual <<'PY'
#!/opt/venv/bin/python
from deepops_fixtures.cli import main
main()
PY
chmod 0755 /opt/venv/bin/deepops-virtual
ln -s /opt/venv/bin/deepops-virtual /usr/local/bin/deepops-virtual

sh /rig/guest.sh
rm -rf /rig
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
echo 'HostKey /etc/ssh/ssh_host_ed25519_key' >> /etc/ssh/sshd_config.d/10-rig.conf
apt-get clean
rm -rf /var/lib/apt/lists/*
chmod 0755 /finish.sh
