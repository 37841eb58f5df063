package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
)

// order is one line of stdin: a response to send, or the end of the stream.
type order struct {
	Type      string            `json:"type"`
	Version   string            `json:"version"`
	Nonce     string            `json:"nonce"`
	Resources []json.RawMessage `json:"resources"`
	Break     bool              `json:"break"`
}

// response is what the order says to send.
func (o order) response() (*discovery.DiscoveryResponse, error) {
	response := &discovery.DiscoveryResponse{VersionInfo: o.Version, Nonce: o.Nonce, TypeUrl: o.Type}
	for _, text := range o.Resources {
		resource := &anypb.Any{}
		if err := protojson.Unmarshal(text, resource); err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		response.Resources = append(response.Resources, resource)
	}
	return response, nil
}

// script is an ADS server without a will of its own: it sends what it is ordered to, and tells of each request.
type script struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	orders  chan order
	streams chan int
}

// scripted serves ADS by the script that stdin is. There is one client, with one stream at a time.
func scripted(args []string) error {
	flags := flag.NewFlagSet("scripted", flag.ExitOnError)
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := &script{orders: make(chan order), streams: make(chan int, 1)}
	served.streams <- 1
	running := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(running, served)
	failed := make(chan error, 1)
	go func() { failed <- running.Serve(listener) }()
	say(map[string]string{"listening": listener.Addr().String()})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var next order
		if err := json.Unmarshal(lines.Bytes(), &next); err != nil {
			return fmt.Errorf("stdin: %w", err)
		}
		served.orders <- next
	}
	running.Stop()
	return <-failed
}

func (s *script) StreamAggregatedResources(stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	number := <-s.streams
	defer func() { s.streams <- number + 1 }()
	ended, end := context.WithCancel(stream.Context())
	defer end()
	go func() {
		defer end()
		for {
			request, err := stream.Recv()
			if err != nil {
				return
			}
			tell(number, request)
		}
	}()
	for {
		select {
		case <-ended.Done():
			say(map[string]any{"stream": number, "ended": true})
			return nil
		case next := <-s.orders:
			if next.Break {
				return status.Error(codes.Unavailable, "the script says so")
			}
			response, err := next.response()
			if err != nil {
				panic(err) // The script is ours.
			}
			if err := stream.Send(response); err != nil {
				return err
			}
		}
	}
}

// tell says what a client asks for.
func tell(stream int, request *discovery.DiscoveryRequest) {
	line := map[string]any{
		"stream":  stream,
		"type":    request.GetTypeUrl()[strings.LastIndex(request.GetTypeUrl(), ".")+1:],
		"version": request.GetVersionInfo(),
		"nonce":   request.GetResponseNonce(),
		"names":   append([]string{}, request.GetResourceNames()...),
		"code":    request.GetErrorDetail().GetCode(),
		"why":     request.GetErrorDetail().GetMessage(),
	}
	if node := request.GetNode(); node != nil {
		line["node"] = map[string]any{"id": node.GetId(), "agent": node.GetUserAgentName(), "features": node.GetClientFeatures()}
	}
	say(line)
}
