# shellcheck shell=bash
# The order function of ../node in its smallest form: the same `simulate` in the event, an echo of the order as the answer.

# handler EVENT_FILE: prints the answer; a status other than 0 is an error of the function.
handler() {
    local event
    event=$(<"$1")
    case $event in
        *'"simulate":"throw"'*)
            echo "card declined" >&2
            return 3
            ;;
        *'"simulate":"timeout"'*)
            echo "waiting for the stock service" >&2
            sleep 3600
            ;;
        *'"simulate":"exit"'*)
            echo "the payment library gave up" >&2
            exit 1
            ;;
    esac
    printf '{"status":"CONFIRMED","order":%s}' "$event"
}
