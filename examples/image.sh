#!/bin/sh
# Order one image, wait for it, and print its URL.
#
#   GATEWAY_URL=http://127.0.0.1:8080 GATEWAY_KEY=sk-… ./image.sh
set -eu

main() {
    order='{"model": "realvision", "prompt": "A lighthouse at dusk", "width": 1152, "height": 768}'
    job=$(call texttoimage/ "$order") || fail "$job"
    jobid=$(printf '%s\n' "$job" | sed -n 's/.*"jobid": *\([0-9]*\).*/\1/p')
    signature=$(text_of signature "$job")

    tries=120
    while [ $tries -gt 0 ]; do
        state=$(call texttoimage/jobs/ "{\"jobid\": \"$jobid\", \"signature\": \"$signature\"}") || fail "$state"
        case $(text_of status "$state") in
            success) text_of image_url "$state"; return ;;
            error)   fail "$state" ;;
        esac
        tries=$((tries - 1))
        sleep 1
    done
    fail "no image after two minutes"
}

# The text that a JSON object of one level has under a name (a slash may be written \/).
text_of() {
    printf '%s\n' "$2" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | sed 's,\\/,/,g'
}

call() {
    curl --silent --show-error --fail-with-body \
        "${GATEWAY_URL:-http://127.0.0.1:8080}/api/$1" \
        --header "Authorization: Bearer ${GATEWAY_KEY:?set GATEWAY_KEY to a sub-key}" \
        --header 'Content-Type: application/json' \
        --data "$2"
}

fail() {
    echo "$1" >&2
    exit 1
}

main
