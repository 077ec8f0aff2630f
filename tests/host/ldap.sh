#!/bin/bash
# Users from a directory, in a scratch host: Debian's slapd over TLS with a CA of its own, and SSSD, as the README tells.
#   ldap.sh DEBS   installs both from the packages in that folder (install-needs.sh puts them into target/ldap), sets them up
# Users, who are in no file of the host: lena (whose password is lena's secret), in groups staff-l and operators; otto (otto's
# secret), in staff-l alone. `ldap.sh remove lena operators` and `ldap.sh add lena operators` change that.
set -euo pipefail
base=dc=example,dc=org
admin=(-x -H ldapi:/// -D "cn=admin,$base" -w admin)

member() { # add|delete USER GROUP
	printf 'dn: cn=%s,%s\nchangetype: modify\n%s: memberUid\nmemberUid: %s\n' "$3" "$base" "$1" "$2" |
		ldapmodify "${admin[@]}" >/dev/null
}
case ${1:?DEBS, add or remove} in
add) member add "$2" "$3"; exit ;;
remove) member delete "$2" "$3"; exit ;;
esac

export DEBIAN_FRONTEND=noninteractive
debconf-set-selections <<END
slapd slapd/domain string example.org
slapd shared/organization string example
slapd slapd/password1 password admin
slapd slapd/password2 password admin
END
dpkg -i "$1"/*.deb >/root/ldap-dpkg.log 2>&1 || { cat /root/ldap-dpkg.log >&2; exit 1; }

# The directory's host has a certificate, by a CA that is no other's.
tls=/etc/ldap/tls
mkdir -p $tls
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj '/CN=CA of the directory' \
	-keyout $tls/ca.key -out $tls/ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=ldap.example.org' \
	-keyout $tls/ldap.key -out $tls/ldap.csr 2>/dev/null
openssl x509 -req -in $tls/ldap.csr -CA $tls/ca.pem -CAkey $tls/ca.key -CAcreateserial -days 365 -out $tls/ldap.pem \
	-extfile <(echo 'subjectAltName=DNS:ldap.example.org') 2>/dev/null
chown -R openldap $tls
grep -q ldap.example.org /etc/hosts || echo '127.0.0.1 ldap.example.org' >>/etc/hosts
ldapmodify -Q -Y EXTERNAL -H ldapi:/// >/dev/null <<END
dn: cn=config
changetype: modify
replace: olcTLSCertificateFile
olcTLSCertificateFile: $tls/ldap.pem
-
replace: olcTLSCertificateKeyFile
olcTLSCertificateKeyFile: $tls/ldap.key
END
sed -i 's|^SLAPD_SERVICES=.*|SLAPD_SERVICES="ldapi:/// ldaps:///"|' /etc/default/slapd
systemctl restart slapd

user() { # NAME NUMBER
	printf 'dn: uid=%s,%s\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\ncn: %s\nsn: %s\nuid: %s\n' "$1" "$base" "$1" "$1" "$1"
	printf 'uidNumber: %s\ngidNumber: 20100\nhomeDirectory: /home/%s\nuserPassword: %s\n\n' "$2" "$1" "$1's secret"
}
group() { # NAME NUMBER [MEMBER]
	printf 'dn: cn=%s,%s\nobjectClass: posixGroup\ncn: %s\ngidNumber: %s\n' "$1" "$base" "$1" "$2"
	[ -z "${3:-}" ] || printf 'memberUid: %s\n' "$3"
	echo
}
{ user lena 20001; user otto 20002; group staff-l 20100; group operators 20101 lena; } | ldapadd "${admin[@]}" >/dev/null

# What the README says.
install -m 644 $tls/ca.pem /etc/ssl/certs/directory-ca.pem
cat >/etc/sssd/sssd.conf <<END
[sssd]
domains = example.org

[domain/example.org]
id_provider = ldap
ldap_uri = ldaps://ldap.example.org
ldap_search_base = dc=example,dc=org
ldap_tls_cacert = /etc/ssl/certs/directory-ca.pem
END
chmod 600 /etc/sssd/sssd.conf
systemctl restart sssd
for _ in $(seq 100); do
	id lena >/dev/null 2>&1 && exit 0
	sleep 0.1
done
echo "ldap.sh: SSSD does not know lena" >&2
journalctl -n 30 --no-pager >&2
exit 1
