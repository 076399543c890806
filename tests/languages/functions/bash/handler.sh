# shellcheck shell=bash
# The function of the language tests, in bash: what it does with an event, the event's `do` says.

if [[ -n ${FAIL_INIT:-} ]]; then
    echo "TABLE_NAME is not set" >&2
    exit 1
fi

# handler EVENT_FILE: prints the answer; a status other than 0 is an error of the function.
handler() {
    local head
    # The event may be 6 MB, and no text: only its head is looked at.
    head=$(head -c 200 "$1" | tr -d '\0')
    [[ $head =~ \"do\":\"([a-z]+)\" ]]
    # shellcheck disable=SC2154 # the bootstrap's
    printf '{"requestId": "%s", "message": "asked to %s"}\n' "$request_id" "${BASH_REMATCH[1]:-}" >&2
    case $head in
        *'"do":"throw"'*) return 3 ;;
        *'"do":"hang"'*) sleep 3600 ;;
        *'"do":"exit"'*) exit 3 ;;
        *'"do":"panic"'*) : "${no_such_variable:?the payment library gave up}" ;; # ends the shell
        *'"do":"crash"'*) kill -ABRT $BASHPID ;;
        *'"do":"memory"'*) take_all_memory ;;
    esac
    cat "$1"
}

take_all_memory() {
    local kept=x
    while true; do kept+=$kept; done
}
