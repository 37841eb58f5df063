"""xDS resources as documents of our configuration file: proto-JSON with `@type`, one to a document.

JSON is YAML, so no YAML writer is needed. Names of fields are protobuf's own.
"""

import json

TYPE = "type.googleapis.com/envoy"
POLICIES = f"{TYPE}.extensions.load_balancing_policies"
ADS = {"ads": {}, "resource_api_version": "V3"}
ROUTER = {"name": "router", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}}


def document(resources):
    """The file that holds these resources."""
    return "".join(f"---\n{json.dumps(resource, indent=1)}\n" for resource in resources)


def backends(name, addresses, identity=None, weight=100, weigh=None, shows=True):
    """A cluster of servers with this SPIFFE identity, plaintext without one, any of the mesh if it is empty. To be given to `target`.

    `weigh` is how they report the load that they are weighed by: in `responses`, or on a `stream`. The client shows a certificate
    of its own, unless `shows` is false.
    """
    made = {"name": name, "addresses": addresses, "identity": identity, "weight": weight}
    return {**made, "weigh": weigh, "shows": shows}


def target(name, *clusters):
    """What a client of `name` needs: Listener, routes, clusters and endpoints."""
    weights = [{"name": cluster["name"], "weight": cluster["weight"]} for cluster in clusters]
    route = {"match": {"prefix": ""}, "route": {"weighted_clusters": {"clusters": weights}}}
    rds = {"config_source": ADS, "route_config_name": f"{name}-routes"}
    connection = {"@type": _manager(), "rds": rds, "http_filters": [ROUTER]}
    made = [
        {"@type": f"{TYPE}.config.listener.v3.Listener", "name": name, "api_listener": {"api_listener": connection}},
        {
            "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
            "name": f"{name}-routes",
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}],
        },
    ]
    for cluster in clusters:
        made += [_cluster(cluster), _endpoints(cluster)]
    return made


def kinds(name, versions):
    """The same in the standard kinds: a Service with a share for each version, which is (address, identity, weight)."""
    service, port = name.rsplit(":", 1)
    port = int(port)
    made, references = [_service(service, port)], []
    for number, (address, identity, weight) in enumerate(versions, 1):
        version = f"{service}-v{number}"
        made += [_service(version, port), _slice(version, address), _tls_policy(version, identity)]
        references.append({"name": version, "port": port, "weight": weight})
    parent = {"kind": "Service", "group": "", "name": service}
    spec = {"parentRefs": [parent], "rules": [{"backendRefs": references}]}
    made.append(_kind("gateway.networking.k8s.io/v1", "GRPCRoute", service, spec=spec))
    return made


def _kind(version, kind, name, labels=None, **fields):
    metadata = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def _service(name, port):
    return _kind("v1", "Service", name, spec={"ports": [{"name": "grpc", "port": port, "appProtocol": "grpc"}]})


def _slice(service, address):
    host, port = address.rsplit(":", 1)
    labels = {"kubernetes.io/service-name": service}
    ports = [{"name": "grpc", "port": int(port)}]
    endpoints = [{"addresses": [host]}]
    return _kind("discovery.k8s.io/v1", "EndpointSlice", service, labels, addressType="IPv4", ports=ports, endpoints=endpoints)


def _tls_policy(service, identity):
    roots = {"kind": "ConfigMap", "group": "", "name": "default"}
    names = [{"type": "URI", "uri": identity}]
    spec = {
        "targetRefs": [{"kind": "Service", "group": "", "name": service}],
        "validation": {"hostname": service, "caCertificateRefs": [roots], "subjectAltNames": names},
        "options": {"mesh/identity": "default"},
    }
    return _kind("gateway.networking.k8s.io/v1", "BackendTLSPolicy", service, spec=spec)


def rbac(principal):
    """The filter that allows this principal, and nobody else."""
    policy = {"permissions": [{"any": True}], "principals": [principal]}
    rules = {"action": "ALLOW", "policies": {"only": policy}}
    return {"name": "rbac", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.rbac.v3.RBAC", "rules": rules}}


def server_listener(address, is_tls, asks=True, filters=(), permissive=False, own=None):
    """What a server that listens on `address` needs. With TLS it asks every client for a certificate, unless told not to.

    Permissive, it takes plaintext on the same port, told apart by the client's first bytes. With a name of its `own` it takes TLS
    for that name from everybody, and TLS of the mesh only from who offers `istio` by ALPN.
    """
    route = {"match": {"prefix": ""}, "non_forwarding_action": {}}
    routes = {"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
    connection = {"@type": _manager(), "route_config": routes, "http_filters": [*filters, ROUTER]}
    chain = {"name": "all", "filters": [{"name": "http", "typed_config": connection}]}
    if is_tls:
        chain["transport_socket"] = _tls("Downstream", _common() if asks else _shown(), require_client_certificate=asks)
    chains, inspectors = [chain], []
    if permissive:
        plain = {key: value for key, value in chain.items() if key != "transport_socket"}
        matched = lambda chain, protocol, name=None, **more: {
            **chain,
            "name": name or protocol,
            "filter_chain_match": {"transport_protocol": protocol, **more},
        }
        chains = [matched(chain, "tls", **({"application_protocols": ["istio"]} if own else {})), matched(plain, "raw_buffer")]
        if own:
            mine = {**plain, "transport_socket": _tls("Downstream", _shown(), require_client_certificate=False)}
            chains.append(matched(mine, "tls", "own", server_names=[own]))
        kind = f"{TYPE}.extensions.filters.listener.tls_inspector.v3.TlsInspector"
        inspectors = [{"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": kind}}]
    return {
        "@type": f"{TYPE}.config.listener.v3.Listener",
        "name": f"grpc/server?xds.resource.listening_address={address}",
        "address": _address(address),
        "filter_chains": chains,
        **({"listener_filters": inspectors} if inspectors else {}),
    }


def _cluster(cluster):
    made = {
        "@type": f"{TYPE}.config.cluster.v3.Cluster",
        "name": cluster["name"],
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS},
        "lb_policy": "ROUND_ROBIN",
    }
    if cluster["identity"] is not None:
        made["transport_socket"] = _tls("Upstream", _common(cluster["identity"], cluster["shows"]))
    if cluster["weigh"]:
        made["load_balancing_policy"] = _by_load(cluster["weigh"])
    return made


def _by_load(weigh):
    """Weights as soon as servers have said something for a tenth of a second."""
    child = {
        "@type": f"{POLICIES}.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
        "enable_oob_load_report": weigh == "stream",
        "oob_reporting_period": "1s",
        "blackout_period": "0.1s",
        "weight_update_period": "0.1s",
    }
    return _policy({"@type": f"{POLICIES}.wrr_locality.v3.WrrLocality", "endpoint_picking_policy": _policy(child)})


def _policy(config):
    return {"policies": [{"typed_extension_config": {"name": "policy", "typed_config": config}}]}


def _endpoints(cluster):
    hosts = [{"endpoint": {"address": _address(address)}} for address in cluster["addresses"]]
    locality = {"locality": {"region": "here"}, "load_balancing_weight": 1, "lb_endpoints": hosts}
    return {
        "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster["name"],
        "endpoints": [locality],
    }


PROVIDER = {"instance_name": "default"}


def _shown():
    return {"tls_certificate_provider_instance": PROVIDER}


def _common(identity=None, shows=True):
    validation = {"ca_certificate_provider_instance": PROVIDER}
    if identity:
        validation["match_subject_alt_names"] = [{"exact": identity}]
    return {**(_shown() if shows else {}), "validation_context": validation}


def _tls(side, common, **more):
    context = {"@type": f"{TYPE}.extensions.transport_sockets.tls.v3.{side}TlsContext", "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": {**context, **more}}


def _address(text):
    host, port = text.rsplit(":", 1)
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _manager():
    return f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
