#!/bin/sh
# Runs in the new root file system while the box is built: what makes a Debian system a Vagrant box.
set -eu

# The public key every Vagrant box is born with; the harness replaces it by the cluster's own key at the first boot.
useradd --create-home --shell /bin/bash --uid 1000 vagrant
install -d -m 0700 -o vagrant -g vagrant /home/vagrant/.ssh
cat > /home/vagrant/.ssh/authorized_keys <<'KEY'
@VAGRANT_KEY@
KEY
chown vagrant:vagrant /home/vagrant/.ssh/authorized_keys
chmod 0600 /home/vagrant/.ssh/authorized_keys
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/vagrant
chmod 0440 /etc/sudoers.d/vagrant

echo debian12 > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 debian12\n::1 localhost ip6-localhost\n' > /etc/hosts
printf '/dev/vda1 / ext4 defaults,noatime,errors=remount-ro 0 1\n' > /etc/fstab
# networkd configures the interfaces as they appear. ifupdown waits for all of udev first: half a minute on an emulated
# guest. The client identifier is the MAC address, which is what Vagrant looks the lease up by.
cat > /etc/systemd/network/10-eth0.network <<'NET'
[Match]
Name=eth0

[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no

[DHCPv4]
ClientIdentifier=mac
NET
systemctl enable systemd-networkd.service systemd-resolved.service

# No look-up of the caller's name, no message of the day: a login costs what the key exchange costs.
printf 'UseDNS no\nPrintMotd no\nPrintLastLog no\nPasswordAuthentication no\n' > /etc/ssh/sshd_config.d/10-box.conf
sed -i '/pam_motd\|pam_mail/d' /etc/pam.d/sshd
# A user's service manager outlives his last session: starting one anew costs each first login a second.
mkdir -p /etc/systemd/logind.conf.d
printf '[Login]\nUserStopDelaySec=infinity\n' > /etc/systemd/logind.conf.d/10-box.conf
rm -f /etc/ssh/ssh_host_*
cat > /etc/systemd/system/ssh-host-keys.service <<'UNIT'
[Unit]
Description=Make this guest's own ssh host key
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=multi-user.target
UNIT
systemctl enable ssh-host-keys.service

# Everything after loglevel halves what an emulated guest spends on booting (33 s to 20 s measured): hardening that is
# expensive without hardware, self-tests, and the system services' own system call filters. A test guest needs none.
cat > /etc/default/grub <<'GRUB'
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_RECORDFAIL_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="loglevel=5 systemd.show_status=true fsck.mode=skip mitigations=off SYSTEMD_SECCOMP=0 init_on_alloc=0 apparmor=0 audit=0 nokaslr randomize_kstack_offset=off cryptomgr.notests random.trust_cpu=on transparent_hugepage=always tsc=reliable nowatchdog rcupdate.rcu_expedited=1"
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 net.ifnames=0 biosdevname=0"
GRUB_TERMINAL="serial console"
GRUB_SERIAL_COMMAND="serial --speed=115200"
GRUB_DISABLE_OS_PROBER=true
GRUB_DISABLE_RECOVERY=true
GRUB_DISABLE_LINUX_UUID=true
GRUB_DEVICE=/dev/vda1
GRUB

# These wait for the role that configures them.
systemctl disable chrony.service rsyslog.service syslog.socket rpcbind.service rpcbind.socket nfs-client.target || true

# Timers that would compete with a cluster under test for the guest's processors.
systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer \
  fstrim.timer man-db.timer systemd-pstore.service
# Units that load or mount what no test guest uses; each costs seconds of an emulated boot.
systemctl mask modprobe@drm.service modprobe@dm_mod.service modprobe@loop.service modprobe@efi_pstore.service \
  systemd-binfmt.service dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=persistent\nRuntimeMaxUse=32M\nSystemMaxUse=64M\n' > /etc/systemd/journald.conf.d/10-box.conf
printf 'force-unsafe-io\n' > /etc/dpkg/dpkg.cfg.d/10-unsafe-io
printf 'APT::Install-Recommends "false";\nAcquire::Languages "none";\nAcquire::Retries "3";\n' > /etc/apt/apt.conf.d/10-box
# An initial RAM disk with the drivers of virtual disks alone unpacks in a fraction of the time.
sed -i 's/^MODULES=.*/MODULES=list/' /etc/initramfs-tools/initramfs.conf
printf '%s\n' virtio_pci virtio_blk virtio_scsi sd_mod ahci nvme ext4 > /etc/initramfs-tools/modules
update-initramfs -u -k all
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id
apt-get clean
rm -rf /var/lib/apt/lists/*
chmod 0755 /finish.sh
