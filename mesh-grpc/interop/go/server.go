package main

import (
	"flag"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/xds"
)

// serving is what grpc.Server and xds.GRPCServer have in common.
type serving interface {
	grpc.ServiceRegistrar
	Serve(net.Listener) error
	Stop()
}

// server serves grpc.health.v1.Health, plain, or as the Listener of its address says.
func server(args []string) error {
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address")
	useXDS := flags.Bool("xds", false, "take certificates and rules from the control plane of the bootstrap")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	running, err := newServer(*useXDS)
	if err != nil {
		return err
	}
	healthpb.RegisterHealthServer(running, health.NewServer())
	say(map[string]string{"listening": listener.Addr().String()})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		running.Stop()
	}()
	return running.Serve(listener)
}

func newServer(useXDS bool) (serving, error) {
	if !useXDS {
		return grpc.NewServer(), nil
	}
	creds, err := xdscreds.NewServerCredentials(xdscreds.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return nil, err
	}
	told := xds.ServingModeCallback(func(_ net.Addr, change xds.ServingModeChangeArgs) {
		why := ""
		if change.Err != nil {
			why = change.Err.Error()
		}
		say(map[string]string{"serving": change.Mode.String(), "why": why})
	})
	return xds.NewGRPCServer(grpc.Creds(creds), told)
}
