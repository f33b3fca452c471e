#!/bin/sh
# Called by udhcpc with the lease in the environment.
case "$1" in
bound | renew)
    ifconfig "$interface" "$ip" netmask "$subnet"
    for gateway in $router; do
        route add default gw "$gateway" dev "$interface" 2>/dev/null
        echo "$gateway" >/run/gateway
        break
    done
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
