#!/bin/bash
# make-image.sh [FOLDER [FILES [OPTIONS [MIB]]]]: makes linux.img, a disk with a small Linux, and the BIOS for it.
#
# FOLDER: where the files are written. Default: the current folder.
# FILES: a folder whose files are copied into /root of the disk. Default: none.
# OPTIONS: further options of the kernel, for example console=ttyS0.
# MIB: size of the disk. From 256 on the disk has all drivers of the kernel. Default: 64.
#
# The disk has one ext4 partition, from which GRUB loads the kernel. All of it comes from Debian's packages.
# The script installs and mounts nothing, so it does not need root.
#
# Requires Debian 12, the last with a kernel for i386: v86 has no 64-bit processor. Requires the packages cpio,
# e2fsprogs, fdisk, grub-common, grub-pc-bin and seabios.
set -euo pipefail

folder=${1:-.}
files=${2:-}
more=${3:-}
mib=${4:-64}
packages=$PWD/node_modules/.cache/linux-i386
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The drivers of the disk, which Debian's kernel does not contain. Each module needs those before it.
modules='scsi_common scsi_mod crct10dif_common crc-t10dif crc64 crc64-rocksoft t10-pi sd_mod'
modules="$modules libata ata_piix crc32c_generic jbd2 mbcache crc16 ext4"
# Without these options the emulated processor does twice the work before the shell starts. Most of that work is
# self-tests of the kernel's cryptography.
options="loglevel=1 mitigations=off nokaslr noisapnp cryptomgr.notests $more"

# A separate state of apt for i386, so that the machine's own state does not change.
if [ ! -d "$packages" ]; then
  mkdir -p "$work"/apt/{lists/partial,packages} "$(dirname "$packages")"
  touch "$work/apt/status"
  cat >"$work/apt.conf" <<END
APT::Architecture "i386";
APT::Sandbox::User "root";
Dir::State "$work/apt";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt";
END
  export APT_CONFIG=$work/apt.conf
  # This fails if any of the machine's sources has no i386. If that source is needed, the next calls fail and say so.
  apt-get -qq update 2>/dev/null || true
  kernel=$(apt-cache depends linux-image-686 | sed -n 's/.*Depends: //p')
  (cd "$work/apt/packages" && apt-get -qq download "$kernel" busybox-static)
  # Another run may have been faster.
  mv -T "$work/apt/packages" "$packages" || [ -d "$packages" ]
fi
for package in "$packages"/*.deb; do dpkg -x "$package" "$work/packages"; done

# The initial file system, from which the kernel mounts the disk. BusyBox finds its own commands through /proc.
mkdir -p "$work"/initrd/{bin,dev,disk,proc}
cp "$work/packages/bin/busybox" "$work/initrd/bin"
ln -s busybox "$work/initrd/bin/sh"
for module in $modules; do find "$work/packages/lib" -name "$module.ko" -exec cp {} "$work/initrd" \;; done
cat >"$work/initrd/init" <<END
#!/bin/sh
busybox mount -t proc none /proc
mount -t devtmpfs none /dev
for module in $modules; do insmod /\$module.ko; done
until [ -b /dev/sda1 ]; do sleep 0.1; done
mount -o ro /dev/sda1 /disk
mount --move /dev /disk/dev
mount --move /proc /disk/proc
exec busybox switch_root /disk /sbin/init
END
chmod +x "$work/initrd/init"

mkdir -p "$work"/disk/{bin,boot,dev,etc,proc,root,sbin,sys,tmp}
cp "$work/packages/bin/busybox" "$work/disk/bin"
ln -s busybox "$work/disk/bin/sh"
ln -s ../bin/busybox "$work/disk/sbin/init"
cat >"$work/disk/etc/inittab" <<'END'
::sysinit:mount -t sysfs none /sys
::sysinit:mount -o remount,rw /
tty1::respawn:-sh
::shutdown:umount -a -r
END
cp "$work"/packages/boot/vmlinuz-* "$work/disk/boot/vmlinuz"
(cd "$work/initrd" && find . | cpio --quiet -o -H newc) >"$work/disk/boot/initrd"
[ "$mib" -lt 256 ] || cp -r "$work/packages/lib" "$work/disk"
[ -z "$files" ] || cp -r "$files/." "$work/disk/root"

# The image: GRUB's first sector, which gets the partition table, then the rest of GRUB, and the partition at 1 MiB.
cat >"$work/grub.cfg" <<END
set root=(hd0,msdos1)
linux /boot/vmlinuz $options
initrd /boot/initrd
boot
END
grub-mkimage -O i386-pc -p / -c "$work/grub.cfg" -o "$work/core.img" biosdisk part_msdos ext2 linux boot
cat /usr/lib/grub/i386-pc/boot.img "$work/core.img" >"$work/linux.img"
truncate -s "${mib}M" "$work/linux.img"
echo 'start=1MiB, type=83, bootable' | sfdisk -q --no-reread --no-tell-kernel "$work/linux.img"
mke2fs -q -t ext4 -E offset=1048576 -d "$work/disk" "$work/linux.img" "$((mib - 1))M"

cp "$work/linux.img" /usr/share/seabios/bios.bin /usr/share/seabios/vgabios-stdvga.bin "$folder"
