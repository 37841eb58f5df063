package main

import (
	"context"
	"flag"
	"io"
	"net"
	"os"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"
)

// serving is what grpc.Server and xds.GRPCServer have in common.
type serving interface {
	grpc.ServiceRegistrar
	Serve(net.Listener) error
	Stop()
}

// server serves grpc.health.v1.Health, plain, or as the Listener of its address says, and tells how busy it is (gRFC A51).
func server(args []string) error {
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address")
	useXDS := flags.Bool("xds", false, "take certificates and rules from the control plane of the bootstrap")
	load := flags.Float64("load", 0, "how busy to say that it is, with 100 requests a second")
	saying := flags.String("saying", "", "how to say it: in `responses`, or on a stream of its own")
	fail := flags.Int64("fail", 0, "fail one of so many calls")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	busy := orca.NewServerMetricsRecorder()
	busy.SetApplicationUtilization(*load)
	busy.SetQPS(100)
	var options []grpc.ServerOption
	if *saying == "responses" {
		options = append(options, orca.CallMetricsServerOption(busy), grpc.ChainUnaryInterceptor(queueing))
	}
	if *fail > 0 {
		options = append(options, grpc.ChainUnaryInterceptor(failing(*fail)))
	}
	running, err := newServer(*useXDS, options...)
	if err != nil {
		return err
	}
	if *saying == "stream" {
		if err := orca.Register(running, orca.ServiceOptions{ServerMetricsProvider: busy}); err != nil {
			return err
		}
	}
	healthpb.RegisterHealthServer(running, health.NewServer())
	say(map[string]string{"listening": listener.Addr().String()})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		running.Stop()
	}()
	return running.Serve(listener)
}

// queueing says with each response how many requests wait.
func queueing(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	orca.CallMetricsRecorderFromContext(ctx).SetNamedMetric("queue", 2)
	return handle(ctx, request)
}

// failing fails one of so many calls.
func failing(every int64) grpc.UnaryServerInterceptor {
	var calls atomic.Int64
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if calls.Add(1)%every == 0 {
			return nil, status.Error(codes.Internal, "it was told to fail")
		}
		return handle(ctx, request)
	}
}

func newServer(useXDS bool, options ...grpc.ServerOption) (serving, error) {
	if !useXDS {
		return grpc.NewServer(options...), nil
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
	return xds.NewGRPCServer(append(options, grpc.Creds(creds), told)...)
}
