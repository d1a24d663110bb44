#!/bin/bash
# A one-node Ceph on loopback: monitor, manager, one OSD in a sparse file, and radosgw, which speaks S3.
# Everything lies in DIRECTORY, a short absolute path that is empty: sockets are in it. It needs 0.5 GiB of memory.
#   ceph.sh start DIRECTORY ACCESS_KEY SECRET_KEY   prints the origin of S3 when it answers, after half a minute
#   ceph.sh kill DIRECTORY DAEMON                   as a crash: client.rgw or osd.0
#   ceph.sh revive DIRECTORY DAEMON
#   ceph.sh stop DIRECTORY
set -euo pipefail
DO=$1
D=$2
C=(-c "$D/ceph.conf")
T=(timeout 60)

pid() { cat "$D/run/$1.pid" 2>/dev/null; }

run_daemon() {
  case $1 in
    osd.0) ceph-osd "${C[@]}" -i 0 2>>"$D/log/osd.err" ;;
    client.rgw) "${T[@]}" radosgw "${C[@]}" -n client.rgw -k "$D/rgw/keyring" ;;
  esac
}

free_ports() {
  python3 -c '
import socket
sockets = [socket.socket() for _ in range(3)]
for one in sockets: one.bind(("127.0.0.1", 0))
print(*[one.getsockname()[1] for one in sockets])'
}

start() {
  local mon2 mon1 port uuid osd
  read -r mon2 mon1 port < <(free_ports)
  mkdir -p "$D"/{run,log,mon,mgr,osd,rgw}
  cat > "$D/ceph.conf" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = [v2:127.0.0.1:$mon2,v1:127.0.0.1:$mon1]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon data avail crit = 2
mon data avail warn = 3
run dir = $D/run
admin socket = $D/run/\$name.asok
log file = $D/log/\$name.log
pid file = $D/run/\$name.pid
mon data = $D/mon
mgr data = $D/mgr
osd data = $D/osd
rgw data = $D/rgw
bluestore block size = 4294967296
bluestore block create = true
osd memory target = 939524096
rgw frontends = beast endpoint=127.0.0.1:$port
rgw thread pool size = 64
[client.admin]
keyring = $D/admin.keyring
CONF
  ceph-authtool -C "$D/mon.keyring" --gen-key -n mon. --cap mon 'allow *'
  ceph-authtool -C "$D/admin.keyring" --gen-key -n client.admin \
    --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' --cap mds 'allow *'
  ceph-authtool "$D/mon.keyring" --import-keyring "$D/admin.keyring"
  monmaptool --create --clobber --fsid "$(sed -n 's/^fsid = //p' "$D/ceph.conf")" \
    --addv a "[v2:127.0.0.1:$mon2,v1:127.0.0.1:$mon1]" "$D/monmap"
  ceph-mon "${C[@]}" -i a --mkfs --monmap "$D/monmap" --keyring "$D/mon.keyring"
  ceph-mon "${C[@]}" -i a
  "${T[@]}" ceph "${C[@]}" auth get-or-create mgr.x mon 'allow profile mgr' osd 'allow *' mds 'allow *' \
    -o "$D/mgr/keyring"
  ceph-mgr "${C[@]}" -i x
  # The OSD boots only with the UUID that the monitor knows.
  uuid=$(cat /proc/sys/kernel/random/uuid)
  osd=$("${T[@]}" ceph "${C[@]}" osd new "$uuid")
  "${T[@]}" ceph "${C[@]}" auth get-or-create "osd.$osd" mon 'allow profile osd' mgr 'allow profile osd' osd 'allow *' \
    -o "$D/osd/keyring"
  ceph-osd "${C[@]}" -i "$osd" --mkfs --osd-uuid "$uuid" --no-mon-config 2>>"$D/log/osd.err"
  run_daemon "osd.$osd"
  "${T[@]}" bash -c "until ceph -c '$D/ceph.conf' osd stat | grep -q '1 up'; do sleep 0.3; done"
  "${T[@]}" ceph "${C[@]}" auth get-or-create client.rgw mon 'allow rw' osd 'allow rwx' mgr 'allow rw' \
    -o "$D/rgw/keyring"
  run_daemon client.rgw
  timeout 90 bash -c "until curl --noproxy '*' -s -m 2 -o '$D/log/answer' http://127.0.0.1:$port/; do sleep 0.3; done"
  "${T[@]}" radosgw-admin "${C[@]}" user create --uid=t --display-name=t --access-key="$1" --secret-key="$2"
}

# Waits until the daemons have ended, at most 20 s, and then kills them.
stop() {
  local daemon pids=()
  for daemon in client.rgw osd.0 mgr.x mon.a; do
    if pid "$daemon" >/dev/null; then pids+=("$(pid "$daemon")"); fi
  done
  kill "${pids[@]}" 2>/dev/null || true
  for _ in $(seq 200); do
    kill -0 "${pids[@]}" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "${pids[@]}" 2>/dev/null || true
}

exec 3>&1 >>"${D}.log" 2>&1
trap 'code=$?; [ $code = 0 ] || tail -5 "$D.log" >&3; rm -f "$D.log"' EXIT
# The daemons must not keep the caller's stdout open.
case $DO in
  start)
    start "$3" "$4" 3>&-
    sed -n 's|.*endpoint=|http://|p' "$D/ceph.conf" >&3
    ;;
  kill) kill -9 "$(pid "$3")" ;;
  revive) run_daemon "$3" 3>&- ;;
  stop) stop ;;
esac
