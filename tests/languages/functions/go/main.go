// The function of the language tests, in Go: what it does with an event, the event's `do` says.
package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Do      string `json:"do"`
	Message string `json:"message"`
	Text    string `json:"text"`
}

// PaymentDeclined is what the tests look for as the error's type.
type PaymentDeclined struct{ message string }

func (e PaymentDeclined) Error() string { return e.message }

func handle(ctx context.Context, e event) (map[string]string, error) {
	if known, ok := lambdacontext.FromContext(ctx); ok {
		fmt.Printf("{\"requestId\": %q, \"message\": \"asked to %s\"}\n", known.AwsRequestID, e.Do)
	}
	switch e.Do {
	case "throw":
		return nil, PaymentDeclined{e.Message}
	case "hang":
		time.Sleep(15 * time.Minute)
	case "exit":
		os.Exit(3)
	case "panic": // the runtime client posts it as an error, then ends the process
		panic("the payment library gave up")
	case "crash": // not a nil pointer, which Go turns into a panic: a signal that ends the process
		syscall.Kill(syscall.Getpid(), syscall.SIGABRT)
		time.Sleep(15 * time.Minute)
	case "memory":
		takeAllMemory()
	}
	return map[string]string{"text": e.Text}, nil
}

func takeAllMemory() {
	var kept [][]byte
	for {
		piece := make([]byte, 4<<20)
		for i := 0; i < len(piece); i += 4096 {
			piece[i] = 1
		}
		kept = append(kept, piece)
	}
}

func main() {
	if os.Getenv("FAIL_INIT") != "" {
		fmt.Fprintln(os.Stderr, "TABLE_NAME is not set")
		os.Exit(1)
	}
	lambda.Start(handle)
}
