#!/bin/sh
# Tickets for console-proxy, by an issuer of your own, with OpenSSL 3.
#
#   ticket.sh key KEYFILE                                makes a private key; it never leaves this machine
#   ticket.sh issuer KEYFILE...                          prints the issuer's file, for the host
#   ticket.sh ticket KEYFILE ISSUER GUEST PERSON [MODE [SECONDS [CONSOLES]]]
#   ticket.sh url URL KEYFILE ISSUER GUEST PERSON [MODE [SECONDS [CONSOLES]]]
#
# ISSUER is the name of the issuer's file on the host without .toml, GUEST a UUID, MODE control or view, SECONDS at most 300,
# CONSOLES separated by commas (vnc,serial/0), by default all. A URL begins with https:// and ends in /.
# Keys are named to openssl by their files: what stands in a command line, everybody on a machine can read.
set -eu
umask 077

base64url() { base64 -w0 | tr '+/' '-_' | tr -d '='; }

issuer() {
	list=''
	for file; do
		# The last 32 bytes of the DER form (RFC 8410) are the key.
		list="$list${list:+, }\"$(openssl pkey -in "$file" -pubout -outform DER | tail -c 32 | base64 -w0)\""
	done
	echo "public-keys = [$list]"
}

ticket() {
	file=$1 issuer=$2 guest=$3 person=$4 mode=${5:-control} seconds=${6:-60} consoles=${7:-*}
	case $issuer$guest$person$mode$seconds$consoles in
	*[!A-Za-z0-9._@/,*-]*) echo 'ticket.sh: letters, digits and . _ @ / , * - alone, as this quotes nothing' >&2; exit 2 ;;
	esac
	now=$(date +%s)
	consoles=\"$(printf %s "$consoles" | sed 's/,/","/g')\"
	header="{\"alg\":\"EdDSA\",\"kid\":\"$issuer\",\"typ\":\"JWT\"}"
	claims="{\"iss\":\"$issuer\",\"aud\":\"console-proxy\",\"sub\":\"$person\",\"guest\":\"$guest\",\"consoles\":[$consoles],"
	claims="$claims\"mode\":\"$mode\",\"iat\":$now,\"nbf\":$now,\"exp\":$((now + seconds)),\"jti\":\"$(openssl rand -hex 12)\"}"
	# OpenSSL signs a file with an Ed25519 key, not a stream.
	text=$(mktemp)
	trap 'rm -f "$text"' EXIT
	printf '%s.%s' "$(printf %s "$header" | base64url)" "$(printf %s "$claims" | base64url)" >"$text"
	signature=$(openssl pkeyutl -sign -rawin -inkey "$file" -in "$text" | base64url)
	echo "$(cat "$text").$signature"
}

case ${1:-}/$# in
key/2) set -C; openssl genpkey -algorithm ed25519 >"$2" ;;
issuer/1) exit 2 ;;
issuer/*) shift; issuer "$@" ;;
ticket/[5-8]) shift; ticket "$@" ;;
# Behind #: what stands there is sent to no server and stands in no log.
url/[6-9]) url=$2; shift 2; token=$(ticket "$@"); echo "$url#token=$token" ;;
*) sed -n 's/^# \{0,1\}//p' "$0" | sed -n '2,12p' >&2; exit 2 ;;
esac
