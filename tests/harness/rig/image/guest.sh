#!/bin/sh
# Makes the Vagrant box 'rig/guest' inside the rig's new root file system: the second-level guest. It is emulated by an
# emulated machine, so it is as small as a guest can be that Vagrant and the harness bring up: Debian's cloud kernel, busybox
# and dropbear in an initial RAM disk, and GRUB to load them from a disk. Nothing in it is for use outside the rig.
set -eu
work=/rig/guest
mkdir -p $work/tree $work/kernel $work/disk
cd $work

dpkg-deb -x /rig/linux-image-*.deb kernel
modules=$(echo kernel/lib/modules/*)
depmod -b kernel "${modules##*/}"

cd tree
mkdir -p bin sbin usr/bin usr/sbin lib lib64 etc/dropbear etc/systemd/network proc sys dev run tmp root home/vagrant/.ssh mnt
cp /bin/busybox bin/busybox
for program in /usr/sbin/dropbear /usr/bin/dropbearkey; do
  cp $program usr/sbin/
  ldd $program | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p ".$(dirname "$library")"
    cp -L "$library" ".$library"
  done
done
touch modules
for module in virtio_pci virtio_net virtio_rng; do
  modprobe -d ../kernel -S "${modules##*/}" --show-depends $module | sed -n 's/^insmod //p' | while read -r file; do
    grep -qxF "$(basename "$file")" modules 2>/dev/null && continue
    cp "$file" lib/
    basename "$file" >> modules
  done
done
printf 'root:x:0:0::/root:/bin/sh\nvagrant:x:0:0::/home/vagrant:/bin/sh\n' > etc/passwd
printf 'root:x:0:\n' > etc/group
printf '/bin/sh\n' > etc/shells
printf '127.0.0.1 localhost\n127.0.1.1 guest\n' > etc/hosts
cp /rig/vagrant.pub home/vagrant/.ssh/authorized_keys
chmod 0700 root home/vagrant home/vagrant/.ssh
chmod 0600 home/vagrant/.ssh/authorized_keys
dropbearkey -t ed25519 -f etc/dropbear/dropbear_ed25519_host_key >/dev/null
cp /rig/guest-init init
chmod 0755 init
find . | cpio --quiet -o -H newc | gzip -9 > ../disk/initrd
cd ..
cp kernel/boot/vmlinuz-* disk/vmlinuz

# A disk with one partition. GRUB's two parts are put where its own installer puts them: the first into the first sector,
# around the table of partitions, the second into the gap behind it.
cat > grub.cfg <<'GRUB'
set root=(hd0,msdos1)
linux /vmlinuz console=ttyS0 loglevel=4 net.ifnames=0 mitigations=off nokaslr init_on_alloc=0 cryptomgr.notests random.trust_cpu=on tsc=reliable no_timer_check nowatchdog audit=0 apparmor=0 rcupdate.rcu_expedited=1
initrd /initrd
boot
GRUB
grub-mkimage -O i386-pc -o core.img -c grub.cfg -p / biosdisk part_msdos ext2 linux
truncate -s 64M disk.img
echo '2048,,L,*' | sfdisk -q disk.img
mke2fs -q -t ext2 -b 4096 -L guest -d disk -E offset=1048576 -F disk.img 15872
dd if=/usr/lib/grub/i386-pc/boot.img of=disk.img bs=440 count=1 conv=notrunc status=none
dd if=core.img of=disk.img bs=512 seek=1 conv=notrunc status=none
truncate -s 1G disk.img
qemu-img convert -O qcow2 disk.img box.img

printf '{"provider": "libvirt", "format": "qcow2", "virtual_size": 1}\n' > metadata.json
printf 'Vagrant.configure("2") { |config| }\n' > Vagrantfile
tar -cf guest.box metadata.json Vagrantfile box.img
HOME=/root vagrant box add --name rig/guest --provider libvirt guest.box
ls -l disk box.img
