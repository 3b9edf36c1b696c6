#!/bin/sh
# Asks a network of four nodes what docs/openapi.json says can be asked, and much that it does not, and
# compares each answer with the document. Installs schemathesis (PyPI) into target/schemathesis.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
tool="$root/target/schemathesis"
cd "$root"
cargo build --quiet --locked -p bkss
if [ ! -x "$tool/bin/st" ]; then
    python3 -m venv "$tool"
    "$tool/bin/pip" install --quiet 'schemathesis>=4,<5'
fi

work=$(mktemp -d)
nodes=
end() {
    for node in $nodes; do kill "$node" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap end EXIT

port=${OPENAPI_PORT:-24300}
bkss="$root/target/debug/bkss"
"$bkss" init --providers 4 --out "$work/net" --base-port "$port" 2>"$work/init.log"
for provider in 0 1 2 3; do
    "$bkss" node --dir "$work/net/providers/$provider" 2>"$work/$provider.log" &
    nodes="$nodes $!"
done
url="http://127.0.0.1:$((port + 1))"
tries=0
until "$bkss" status --node "$url" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { cat "$work/0.log" >&2; exit 1; }
    sleep 1
done

# What the document cannot say: a body of hexadecimal digits need not be a reading, and a number of a
# meter or of a block need not be one that there is.
cd "$work" # it keeps its notes where it is started
"$tool/bin/st" run "$root/docs/openapi.json" --url "$url" \
    --seed 7 --generation-database none --max-examples "${OPENAPI_EXAMPLES:-60}" \
    --phases examples,coverage,fuzzing --checks all \
    --exclude-checks positive_data_acceptance \
    --max-response-time 30 --request-timeout 35 --rate-limit auto --continue-on-failure
