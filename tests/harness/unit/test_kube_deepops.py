"""What DeepOps puts on Kubernetes: found wherever it is, and a part that is broken is named."""

import json

import pytest

from deepops_fixtures import facts
from deepops_fixtures.checks import DeepopsKubernetes, kube_monitoring, kube_probe
from deepops_fixtures.checks.kube_api import ApiRefused
from deepops_fixtures.checks.kube_deepops import balanced, in_pool, policy_faults
from deepops_fixtures.checks.kube_monitoring import Dashboard, metrics
from tests.harness.unit.kube_answers import deployment, node, parts, pod, service

GRAFANA = {"app.kubernetes.io/name": "grafana"}
PROMETHEUS = {"app": "kube-prometheus-stack-prometheus"}
INGRESS = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}
PROXY = "/api/v1/namespaces/monitoring/services"
QUERY = f"{PROXY}/http:kube-prometheus-stack-prometheus:9090/proxy/api/v1/query"


# -- where a part is ------------------------------------------------------------------------


def test_a_part_is_found_in_whatever_namespace_it_is():
    found = parts([service("my-grafana", "elsewhere", GRAFANA)]).find("grafana")
    assert (found.namespace, found.service["metadata"]["name"]) == ("elsewhere", "my-grafana")
    assert found.path == "/api/v1/namespaces/elsewhere/services/http:my-grafana:80/proxy"


def test_a_part_without_its_labels_is_found_by_the_name_of_its_service():
    found = parts([service("kube-prometheus-stack-grafana", "monitoring")]).find("grafana")
    assert found.namespace == "monitoring"


def test_where_several_fit_the_namespace_of_deepops_counts():
    two = [service("grafana", "other", GRAFANA), service("grafana", "monitoring", GRAFANA)]
    assert parts(two).find("grafana").namespace == "monitoring"


def test_the_service_with_an_address_and_the_known_port_is_the_one_that_is_asked():
    ports = {"ports": [{"port": 9090, "name": "http-web", "nodePort": 30500}]}
    found = parts(
        [
            service("prometheus-operated", "monitoring", PROMETHEUS, clusterIP="None", **ports),
            service("prometheus-reloader", "monitoring", PROMETHEUS),
            service("kube-prometheus-stack-prometheus", "monitoring", PROMETHEUS, **ports),
        ]
    ).find("prometheus")
    assert found.service["metadata"]["name"] == "kube-prometheus-stack-prometheus"
    assert (found.node_port, found.secure) == (30500, False)


def test_a_part_is_found_by_the_labels_of_its_pods():
    item = deployment("plugin", "kube-system", {"app.kubernetes.io/name": "nvidia-device-plugin"})
    item["spec"]["template"] = {"metadata": {"labels": item["metadata"].pop("labels")}}
    found = parts(**{"/apis/apps/v1/daemonsets": [item]}).find("device-plugin")
    assert (found.namespace, found.service) == ("kube-system", None)
    assert [workload.kind for workload in found.workloads] == ["DaemonSet"]


@pytest.mark.parametrize("name", sorted(facts.KUBE_PARTS))
def test_a_part_that_is_nowhere_is_told_in_words_and_never_passes(name):
    deepops = parts([service("grafanas-neighbour", "x", {"app": "other"})])
    part = facts.KUBE_PARTS[name]
    absent = deepops.absent(name)
    assert absent.startswith(
        f"no Service, Deployment, DaemonSet or StatefulSet of {part.title} in"
    )
    assert f"DeepOps puts it into '{part.namespace}'" in absent
    for verdict in (deepops.ready(name), deepops.answers(name), deepops.node_port(name, None)):
        assert (verdict.judged, verdict.faults, verdict.unjudged) == (0, (), (absent,))


def test_https_is_asked_over_https():
    port = {"ports": [{"port": 443, "name": "", "nodePort": 31443}]}
    found = parts([service("kubernetes-dashboard", "kube-system", **port)]).find("dashboard")
    assert found.path.endswith("/services/https:kubernetes-dashboard:443/proxy")


# -- whether it works -----------------------------------------------------------------------


def test_pods_that_are_not_ready_are_named_and_looked_at_anew():
    labels = {"app": "metallb", "component": "controller"}
    broken = deployment("controller", "deepops-loadbalancer", labels, 1, 0)
    waiting = pod("controller-1", "mgmt", phase="Pending")
    waiting["status"]["conditions"] = []
    deepops = parts(deployments=[broken], pods=[waiting])
    (fault,) = deepops.ready("metallb").faults
    assert fault.startswith(
        "Deployment deepops-loadbalancer/controller has 0 of 1 pods ready; pod"
    )
    assert "controller-1 is Pending on mgmt" in fault
    broken["status"]["readyReplicas"] = 1
    assert deepops.ready("metallb").faults == ()


def test_a_service_that_does_not_answer_is_red_with_the_next_command():
    path = f"{PROXY}/http:grafana:80/proxy/api/health"
    said = ApiRefused(f"GET {path}", 503, "", "no endpoints available for service")
    deepops = parts([service("grafana", "monitoring", GRAFANA)], **{path: said})
    (fault,) = deepops.answers("grafana").faults
    assert "Grafana in namespace 'monitoring' does not answer /api/health: no endpoints" in fault
    assert fault.endswith(f"Next: kubectl get --raw '{path}'")
    good = parts([service("grafana", "monitoring", GRAFANA)], **{path: {"database": "ok"}})
    assert (good.answers("grafana").faults, good.answers("grafana").judged) == ((), 1)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ({"error": "timed out"}, "timed out"),
        ({"status": 502, "text": "Bad Gateway"}, "status 502: Bad Gateway"),
        ({"status": 200, "text": "{}"}, ""),
    ],
)
def test_a_node_port_is_asked_at_every_node(monkeypatch, answer, cause):
    asked = []
    monkeypatch.setattr(kube_probe, "ask", lambda _asker, *words: asked.append(words) or answer)
    ports = {"ports": [{"port": 80, "nodePort": 30200}]}
    found = parts([service("grafana", "monitoring", GRAFANA, **ports)], nodes=[node("mgmt")])
    verdict = found.node_port("grafana", None)
    assert asked == [("get", "http://10.0.0.4:30200/api/health")]
    assert verdict.judged == 1
    if cause:
        assert verdict.faults == (
            f"Grafana is not to be had at 'mgmt' (http://10.0.0.4:30200/api/health): {cause}",
        )
    else:
        assert verdict.faults == ()


def test_a_gpu_operator_that_is_not_ready_is_red_in_its_own_words():
    condition = {"status": "True", "message": "ClusterPolicy is not ready, states: driver"}
    policy = {"metadata": {"name": "cluster-policy"}, "status": {"state": "notReady"}}
    assert policy_faults([policy]) == ["ClusterPolicy 'cluster-policy' is 'notReady'"]
    policy["status"]["conditions"] = [condition]
    path = "/apis/nvidia.com/v1/clusterpolicies"
    assert parts(**{path: [policy]}).policy().faults == (
        "ClusterPolicy 'cluster-policy' is 'notReady': ClusterPolicy is not ready, states: driver",
    )
    assert "without a state" in policy_faults([{"metadata": {"name": "new"}}])[0]
    policy["status"]["state"] = "ready"
    good = parts(**{path: [policy]}).policy()
    assert (good.faults, good.judged) == ((), 1)
    assert parts().policy().judged == 0


def test_an_api_that_refuses_is_not_taken_for_a_kind_that_is_not_there():
    path = "/apis/nvidia.com/v1/clusterpolicies"
    with pytest.raises(ApiRefused, match="403"):
        parts(**{path: ApiRefused("GET", 403, "Forbidden", "no")}).policy()


def test_addresses_are_those_of_the_pools():
    path = "/apis/metallb.io/v1beta1/ipaddresspools"
    told = {"spec": {"addresses": ["10.1.0.0/28", "10.2.0.5-10.2.0.9"]}}
    pools = parts(**{path: [told]}).pools
    asked = ("10.1.0.15", "10.1.0.16", "10.2.0.5", "10.2.0.10")
    assert [in_pool(each, pools) for each in asked] == [True, False, True, False]
    assert parts().pools == ["10.0.0.100-10.0.0.110"]
    given = {"status": {"loadBalancer": {"ingress": [{"ip": "10.1.0.3"}, {"hostname": "x"}]}}}
    assert balanced(given) == ["10.1.0.3"]
    assert balanced({"status": {"loadBalancer": {}}}) == []


def test_ingress_is_asked_where_it_listens():
    workload = deployment("ingress", "deepops-ingress", INGRESS)
    ports = [{"port": 80, "nodePort": 32080}, {"port": 443, "nodePort": 32443}]
    front = service("ingress-nginx-controller", "deepops-ingress", INGRESS, ports=ports)
    on_host = parts([front], [workload], pods=[pod("a", "mgmt", hostNetwork=True)])
    assert on_host.ingress_addresses() == [("10.0.0.9", 80, 443)]
    on_ports = parts([front], [workload], nodes=[node("mgmt")], pods=[pod("a", "mgmt")])
    assert on_ports.ingress_addresses() == [("10.0.0.4", 32080, 32443)]
    front["status"] = {"loadBalancer": {"ingress": [{"ip": "10.0.0.100"}]}}
    at_balancer = parts([front], [workload], pods=[pod("a", "mgmt")])
    assert at_balancer.ingress_addresses() == [("10.0.0.100", 80, 443)]


# -- monitoring -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        (
            'sum(DCGM_FI_DEV_GPU_TEMP{instance="$hostname:9400"}) by (gpu)',
            {"DCGM_FI_DEV_GPU_TEMP"},
        ),
        ('A{x="DCGM_FI_STRING"} + DCGM_B{DCGM_FI_LABEL="1"}', {"DCGM_B"}),
        ("DCGM_A / on (DCGM_L) group_left(DCGM_M) DCGM_B # DCGM_C", {"DCGM_A", "DCGM_B"}),
        ("rate(DCGM_A[$__interval]) or DCGM_B[5m:1m] offset 1d", {"DCGM_A", "DCGM_B"}),
        ('{__name__="DCGM_A", gpu="0"}', {"DCGM_A"}),
        ("DCGM_FI_DEV_${what} + DCGM_FI_$what + [[prefix]]_DCGM_A", set()),
        ("cluster:DCGM_A:avg5m", {"cluster:DCGM_A:avg5m"}),
        ("label_values(DCGM_FI_DEV_SM_CLOCK, gpu)", {"DCGM_FI_DEV_SM_CLOCK"}),
        ("node_load1", set()),
    ],
)
def test_the_metrics_of_an_expression_are_read_out_of_it(expression, found):
    assert metrics(expression) == found


BOARD = {
    "title": "GPU Nodes",
    "panels": [
        {"targets": [{"expr": "DCGM_A"}], "title": "DCGM_TITLE"},
        {"type": "row", "panels": [{"targets": [{"expr": "avg(DCGM_B)"}]}]},
    ],
    "templating": {"list": [{"query": {"query": "label_values(DCGM_C, gpu)"}}]},
}


def config_map(text: str, name: str = "gpu.json") -> dict:
    return {"metadata": {"namespace": "monitoring", "name": "gpu"}, "data": {name: text}}


def test_a_dashboard_asks_for_the_metrics_of_all_its_panels_and_variables():
    assert Dashboard.parse(json.dumps(BOARD)).metrics == {"DCGM_A", "DCGM_B", "DCGM_C"}
    wrapped = Dashboard.parse(json.dumps({"dashboard": BOARD}))
    assert (wrapped.title, len(wrapped.metrics)) == ("GPU Nodes", 3)


def monitored(boards: list, answer) -> DeepopsKubernetes:
    ports = {"ports": [{"port": 9090, "name": "http-web"}]}
    prometheus = service("kube-prometheus-stack-prometheus", "monitoring", PROMETHEUS, **ports)
    return parts([prometheus], **{"/api/v1/configmaps": boards, QUERY: answer})


def told(*names: str) -> dict:
    samples = [{"metric": {"__name__": name}, "value": [0, "1"]} for name in names]
    return {"status": "success", "data": {"resultType": "vector", "result": samples}}


def test_metrics_that_prometheus_does_not_have_are_named():
    boards = [config_map(json.dumps(BOARD))]
    verdict = monitored(boards, told("DCGM_A", "DCGM_X")).metrics()
    assert verdict.faults == (
        "the dashboard 'GPU Nodes' asks for what Prometheus does not have: DCGM_B, DCGM_C",
    )
    good = monitored(boards, told("DCGM_A", "DCGM_B", "DCGM_C"))
    assert (good.metrics().faults, good.metrics().judged) == ((), 3)
    asked = dict(good.api.asked)
    assert asked["/api/v1/configmaps"] == {"labelSelector": "grafana_dashboard"}
    assert asked[QUERY] == {"query": kube_monitoring.PRESENT}


@pytest.mark.parametrize(
    ("boards", "answer", "cause"),
    [
        (
            [BOARD],
            told(),
            "Prometheus has no metric of DCGM's at all; the dashboard 'GPU Nodes' asks",
        ),
        ([BOARD], {"status": "error", "error": "timeout"}, "does not answer a query: timeout"),
        ([BOARD], "<html>", "does not answer a query: <html>"),
        (["{"], told("DCGM_A"), "the dashboard 'gpu.json' of ConfigMap monitoring/gpu is broken:"),
        ([[]], told("DCGM_A"), "is broken: it is no JSON object"),
    ],
)
def test_monitoring_that_is_broken_is_red(boards, answer, cause):
    texts = [each if isinstance(each, str) else json.dumps(each) for each in boards]
    faults = monitored([config_map(text) for text in texts], answer).metrics().faults
    assert len(faults) == 1
    assert cause in faults[0]


def test_without_a_dashboard_that_asks_nothing_is_judged():
    other = config_map(json.dumps({"title": "Nodes", "panels": [{"targets": [{"expr": "up"}]}]}))
    verdict = monitored([other, config_map("text", "notes.txt")], told("DCGM_A")).metrics()
    assert (verdict.judged, verdict.faults) == (0, ())
    assert "no dashboard (ConfigMaps with label grafana_dashboard) asks" in str(verdict)
