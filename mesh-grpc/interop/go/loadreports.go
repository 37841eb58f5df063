package main

import (
	"errors"
	"io"
	"time"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// loadReports asks every client that offers them for its load reports, each second, and says what they say.
type loadReports struct {
	loadstats.UnimplementedLoadReportingServiceServer
	// only is the cluster that is asked for; empty is all.
	only string
}

// summed is what endpoints said of one metric.
type summed struct {
	Count uint64  `json:"count"`
	Total float64 `json:"total"`
}

// locality is what was sent to one locality.
type locality struct {
	Region     string            `json:"region"`
	Issued     uint64            `json:"issued"`
	Successful uint64            `json:"successful"`
	Errors     uint64            `json:"errors"`
	InProgress uint64            `json:"inProgress"`
	Metrics    map[string]summed `json:"metrics"`
}

// load is one client's report of one cluster.
type load struct {
	Cluster    string            `json:"load"`
	Service    string            `json:"service"`
	Seconds    float64           `json:"seconds"`
	Dropped    uint64            `json:"dropped"`
	Categories map[string]uint64 `json:"categories"`
	Localities []locality        `json:"localities"`
}

// StreamLoadStats says who came with what, and then each report.
func (r loadReports) StreamLoadStats(stream loadstats.LoadReportingService_StreamLoadStatsServer) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	say(map[string]any{
		"reporter": hello.GetNode().GetId(),
		"features": hello.GetNode().GetClientFeatures(),
		"early":    len(hello.GetClusterStats()),
	})
	asked := &loadstats.LoadStatsResponse{LoadReportingInterval: durationpb.New(time.Second)}
	if r.only == "" {
		asked.SendAllClusters = true
	} else {
		asked.Clusters = []string{r.only}
	}
	if err := stream.Send(asked); err != nil {
		return err
	}
	for {
		report, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, stats := range report.GetClusterStats() {
			say(told(stats))
		}
	}
}

func told(stats *endpoint.ClusterStats) load {
	made := load{
		Cluster:    stats.GetClusterName(),
		Service:    stats.GetClusterServiceName(),
		Seconds:    stats.GetLoadReportInterval().AsDuration().Seconds(),
		Dropped:    stats.GetTotalDroppedRequests(),
		Categories: map[string]uint64{},
	}
	for _, dropped := range stats.GetDroppedRequests() {
		made.Categories[dropped.GetCategory()] = dropped.GetDroppedCount()
	}
	for _, of := range stats.GetUpstreamLocalityStats() {
		metrics := map[string]summed{}
		for _, metric := range of.GetLoadMetricStats() {
			metrics[metric.GetMetricName()] = summed{metric.GetNumRequestsFinishedWithMetric(), metric.GetTotalMetricValue()}
		}
		if metric := of.GetApplicationUtilization(); metric != nil {
			named := summed{metric.GetNumRequestsFinishedWithMetric(), metric.GetTotalMetricValue()}
			metrics["application_utilization"] = named
		}
		made.Localities = append(made.Localities, locality{
			Region:     of.GetLocality().GetRegion(),
			Issued:     of.GetTotalIssuedRequests(),
			Successful: of.GetTotalSuccessfulRequests(),
			Errors:     of.GetTotalErrorRequests(),
			InProgress: of.GetTotalRequestsInProgress(),
			Metrics:    metrics,
		})
	}
	return made
}
