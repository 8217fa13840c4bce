# Turns the lines that names.tmpl prints into a hosts file. A Service has its own address; the name of one without
# ("None", headless) stands for every pod behind it, and each of these that has a hostname has a name of its own as well
# (https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/).
# S NAMESPACE SERVICE ADDRESS|None     E NAMESPACE SERVICE POD-ADDRESS [HOSTNAME]
function full(namespace, service) { return service "." namespace ".svc." domain }
$1 == "S" && $4 != "None" { print $4, full($2, $3) }
$1 == "S" && $4 == "None" { headless[$2, $3] = 1 }
$1 == "E" { address[++count] = $4; host[count] = $5; namespace[count] = $2; service[count] = $3 }
END {
  for (i = 1; i <= count; i++) {
    if (!((namespace[i], service[i]) in headless)) continue
    print address[i], full(namespace[i], service[i])
    if (host[i] != "") print address[i], host[i] "." full(namespace[i], service[i])
  }
}
