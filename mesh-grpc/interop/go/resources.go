package main

import (
	"fmt"
	"net"
	"strconv"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	wrr "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	wrrlocality "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// listenerTemplate names a server's Listener, as the bootstrap's server_listener_resource_name_template does.
const listenerTemplate = "grpc/server?xds.resource.listening_address=%s"

// snapshot is the configuration as resources of one version.
func (c config) snapshot() (cache.ResourceSnapshot, error) {
	resources := map[resource.Type][]types.Resource{}
	add := func(kind resource.Type, message types.Resource) { resources[kind] = append(resources[kind], message) }
	for _, target := range c.Targets {
		add(resource.ListenerType, target.listener())
		add(resource.RouteType, target.routes())
		for _, cluster := range target.Clusters {
			add(resource.ClusterType, cluster.cluster())
			endpoints, err := cluster.endpoints()
			if err != nil {
				return nil, err
			}
			add(resource.EndpointType, endpoints)
		}
	}
	for _, server := range c.Servers {
		listener, err := server.listener()
		if err != nil {
			return nil, err
		}
		add(resource.ListenerType, listener)
	}
	// Its Consistent is not asked: it looks for route names in filter chains only, and a client's Listener has none.
	return cache.NewSnapshot(c.Version, resources)
}

func (t target) routeName() string { return "routes of " + t.Name }

func (t target) listener() *listenerpb.Listener {
	source := &core.ConfigSource{ConfigSourceSpecifier: &core.ConfigSource_Ads{}, ResourceApiVersion: core.ApiVersion_V3}
	connection := &hcm.HttpConnectionManager{
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{
			Rds: &hcm.Rds{ConfigSource: source, RouteConfigName: t.routeName()},
		},
		HttpFilters: []*hcm.HttpFilter{routerFilter()},
	}
	return &listenerpb.Listener{Name: t.Name, ApiListener: &listenerpb.ApiListener{ApiListener: packed(connection)}}
}

func (t target) routes() *route.RouteConfiguration {
	weighted := &route.WeightedCluster{}
	for _, cluster := range t.Clusters {
		weight := wrapperspb.UInt32(max(cluster.Weight, 1))
		weighted.Clusters = append(weighted.Clusters, &route.WeightedCluster_ClusterWeight{Name: cluster.Name, Weight: weight})
	}
	forward := &route.RouteAction{ClusterSpecifier: &route.RouteAction_WeightedClusters{WeightedClusters: weighted}}
	all := &route.Route{
		Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: ""}},
		Action: &route.Route_Route{Route: forward},
	}
	host := &route.VirtualHost{Name: t.Name, Domains: []string{"*"}, Routes: []*route.Route{all}}
	return &route.RouteConfiguration{Name: t.routeName(), VirtualHosts: []*route.VirtualHost{host}}
}

func (c cluster) cluster() *clusterpb.Cluster {
	source := &core.ConfigSource{ConfigSourceSpecifier: &core.ConfigSource_Ads{}, ResourceApiVersion: core.ApiVersion_V3}
	made := &clusterpb.Cluster{
		Name:                 c.Name,
		ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
		EdsClusterConfig:     &clusterpb.Cluster_EdsClusterConfig{EdsConfig: source},
		LbPolicy:             clusterpb.Cluster_ROUND_ROBIN,
	}
	if c.Weigh != "" {
		made.LoadBalancingPolicy = c.policy()
	}
	if c.Load != nil {
		made.LrsServer = &core.ConfigSource{ConfigSourceSpecifier: &core.ConfigSource_Self{Self: &core.SelfConfigSource{}}}
		made.LrsReportEndpointMetrics = c.Load
	}
	if c.TLS != nil {
		made.TransportSocket = socket(&tlspb.UpstreamTlsContext{CommonTlsContext: c.TLS.common()})
	}
	return made
}

// policy weighs backends by their load, as soon as they have said something for a tenth of a second.
func (c cluster) policy() *clusterpb.LoadBalancingPolicy {
	often := durationpb.New(100 * time.Millisecond)
	child := &wrr.ClientSideWeightedRoundRobin{
		EnableOobLoadReport: wrapperspb.Bool(c.Weigh == "stream"),
		OobReportingPeriod:  durationpb.New(time.Second),
		BlackoutPeriod:      often,
		WeightUpdatePeriod:  often,
	}
	return policyOf(&wrrlocality.WrrLocality{EndpointPickingPolicy: policyOf(child)})
}

func policyOf(config proto.Message) *clusterpb.LoadBalancingPolicy {
	extension := &core.TypedExtensionConfig{Name: "policy", TypedConfig: packed(config)}
	policies := []*clusterpb.LoadBalancingPolicy_Policy{{TypedExtensionConfig: extension}}
	return &clusterpb.LoadBalancingPolicy{Policies: policies}
}

func (c cluster) endpoints() (*endpoint.ClusterLoadAssignment, error) {
	made := &endpoint.ClusterLoadAssignment{ClusterName: c.Name}
	for region, backends := range map[string][]string{"here": c.Backends, "elsewhere": c.Elsewhere} {
		if len(backends) == 0 {
			continue
		}
		local := &endpoint.LocalityLbEndpoints{
			Locality:            &core.Locality{Region: region},
			LoadBalancingWeight: wrapperspb.UInt32(1),
		}
		for _, backend := range backends {
			address, err := socketAddress(backend)
			if err != nil {
				return nil, err
			}
			host := &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: address}}
			local.LbEndpoints = append(local.LbEndpoints, &endpoint.LbEndpoint{HostIdentifier: host})
		}
		made.Endpoints = append(made.Endpoints, local)
	}
	if c.Drop > 0 {
		share := &typepb.FractionalPercent{Numerator: c.Drop}
		drop := &endpoint.ClusterLoadAssignment_Policy_DropOverload{Category: "shed", DropPercentage: share}
		drops := []*endpoint.ClusterLoadAssignment_Policy_DropOverload{drop}
		made.Policy = &endpoint.ClusterLoadAssignment_Policy{DropOverloads: drops}
	}
	return made, nil
}

func (l listen) listener() (*listenerpb.Listener, error) {
	address, err := socketAddress(l.Address)
	if err != nil {
		return nil, err
	}
	all := &route.Route{
		Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: ""}},
		Action: &route.Route_NonForwardingAction{NonForwardingAction: &route.NonForwardingAction{}},
	}
	host := &route.VirtualHost{Name: "all", Domains: []string{"*"}, Routes: []*route.Route{all}}
	connection := &hcm.HttpConnectionManager{
		RouteSpecifier: &hcm.HttpConnectionManager_RouteConfig{
			RouteConfig: &route.RouteConfiguration{Name: "all", VirtualHosts: []*route.VirtualHost{host}},
		},
		HttpFilters: []*hcm.HttpFilter{routerFilter()},
	}
	manager := &listenerpb.Filter_TypedConfig{TypedConfig: packed(connection)}
	chain := &listenerpb.FilterChain{Name: "all", Filters: []*listenerpb.Filter{{Name: "http", ConfigType: manager}}}
	if l.TLS != nil {
		chain.TransportSocket = socket(&tlspb.DownstreamTlsContext{
			CommonTlsContext:         l.TLS.common(),
			RequireClientCertificate: wrapperspb.Bool(true),
		})
	}
	return &listenerpb.Listener{
		Name:         fmt.Sprintf(listenerTemplate, l.Address),
		Address:      address,
		FilterChains: []*listenerpb.FilterChain{chain},
	}, nil
}

func (t *tls) common() *tlspb.CommonTlsContext {
	provider := &tlspb.CertificateProviderPluginInstance{InstanceName: t.Instance}
	validation := &tlspb.CertificateValidationContext{CaCertificateProviderInstance: provider}
	if t.SPIFFE != "" {
		exact := &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Exact{Exact: t.SPIFFE}}
		// The older field is the one that every gRPC reads.
		validation.MatchSubjectAltNames = []*matcher.StringMatcher{exact} //nolint:staticcheck
	}
	return &tlspb.CommonTlsContext{
		TlsCertificateProviderInstance: provider,
		ValidationContextType:          &tlspb.CommonTlsContext_ValidationContext{ValidationContext: validation},
	}
}

func socket(context proto.Message) *core.TransportSocket {
	return &core.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: packed(context)},
	}
}

func routerFilter() *hcm.HttpFilter {
	return &hcm.HttpFilter{Name: "router", ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: packed(&router.Router{})}}
}

func socketAddress(text string) (*core.Address, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	value := &core.SocketAddress_PortValue{PortValue: uint32(number)}
	where := &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{Address: host, PortSpecifier: value}}
	return &core.Address{Address: where}, nil
}

func packed(message proto.Message) *anypb.Any {
	any, err := anypb.New(message)
	if err != nil {
		panic(err) // Only messages of our own making get here.
	}
	return any
}
