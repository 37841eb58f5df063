package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds"
)

// counts is what came of some calls.
type counts struct {
	OK     int            `json:"ok"`
	Peers  map[string]int `json:"peers"`
	Secure int            `json:"secure"`
	Errors map[string]int `json:"errors"`
}

// client calls grpc.health.v1.Health/Check as often as each line of stdin says, and says what came of it. A line may name
// another target after the number.
func client(args []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	target := flags.String("target", "", "what to dial")
	timeout := flags.Duration("timeout", 10*time.Second, "of each call")
	wait := flags.Bool("wait-for-ready", false, "let calls wait for a connection")
	if err := flags.Parse(args); err != nil {
		return err
	}
	// mTLS where the cluster says so, plaintext where it says nothing (gRFC A29).
	creds, err := xdscreds.NewClientCredentials(xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return err
	}
	channels := map[string]*grpc.ClientConn{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		number, of, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		calls, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("stdin: %w", err)
		}
		if of == "" {
			of = *target
		}
		channel, ok := channels[of]
		if !ok {
			if channel, err = grpc.NewClient(of, grpc.WithTransportCredentials(creds)); err != nil {
				return err
			}
			defer channel.Close()
			channels[of] = channel
		}
		stub := health.NewHealthClient(channel)
		came := counts{Peers: map[string]int{}, Errors: map[string]int{}}
		for range calls {
			came.call(stub, *timeout, grpc.WaitForReady(*wait))
		}
		say(came)
	}
	return lines.Err()
}

func (c *counts) call(stub health.HealthClient, timeout time.Duration, wait grpc.CallOption) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var from peer.Peer
	_, err := stub.Check(ctx, &health.HealthCheckRequest{}, grpc.Peer(&from), wait)
	if err != nil {
		c.Errors[fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())]++
		return
	}
	c.OK++
	c.Peers[from.Addr.String()]++
	if from.AuthInfo != nil && from.AuthInfo.AuthType() == "tls" {
		c.Secure++
	}
}
