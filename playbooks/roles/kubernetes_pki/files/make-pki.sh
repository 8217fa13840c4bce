#!/bin/sh
# Makes a cluster's certificate authorities, certificates and kubeconfig files where they are missing, and says 'made NAME'
# for each it made. What needs what: kubernetes.io, "PKI certificates and requirements".
# Arguments: folder, API address, API port, the API's service address, control plane node, then NAME=ADDRESS for each node.
set -eu
umask 077
folder=$1 api=$2 port=$3 service=$4 plane=$5
shift 5
cd "$folder"
mkdir -p etcd nodes
days=3650

authority() { # path, common name
  [ -e "$1.crt" ] && return
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  openssl req -x509 -new -key "$1.key" -subj "/CN=$2" -days $days -out "$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature,keyCertSign
  echo "made $1"
}

certificate() { # authority, path, subject, extended key usage, alternative names
  [ -e "$2.crt" ] && return
  openssl ecparam -name prime256v1 -genkey -noout -out "$2.key"
  {
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=$4"
    [ -z "$5" ] || echo "subjectAltName=$5"
  } >"$2.ext"
  openssl req -new -key "$2.key" -subj "$3" |
    openssl x509 -req -CA "$1.crt" -CAkey "$1.key" -CAcreateserial -days $days -extfile "$2.ext" -out "$2.crt" 2>/dev/null
  rm -f "$2.ext"
  echo "made $2"
}

encoded() { base64 -w 0 "$1"; }

kubeconfig() { # file, user, path of the certificate
  [ -e "$1" ] && [ "$1" -nt "$3.crt" ] && return
  cat >"$1" <<CONFIG
apiVersion: v1
kind: Config
clusters:
- name: deepops
  cluster:
    server: https://$api:$port
    certificate-authority-data: $(encoded ca.crt)
users:
- name: $2
  user:
    client-certificate-data: $(encoded "$3.crt")
    client-key-data: $(encoded "$3.key")
contexts:
- name: $2@deepops
  context:
    cluster: deepops
    user: $2
current-context: $2@deepops
CONFIG
  echo "made $1"
}

authority ca kubernetes
authority etcd/ca etcd
if [ ! -e sa.pub ]; then
  openssl ecparam -name prime256v1 -genkey -noout -out sa.key
  openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
  echo "made sa"
fi
names="DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
certificate ca apiserver /CN=kube-apiserver serverAuth \
  "$names,DNS:$plane,DNS:localhost,IP:127.0.0.1,IP:$api,IP:$service"
certificate ca apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth ""
certificate etcd/ca etcd/server "/CN=$plane" serverAuth,clientAuth "DNS:$plane,DNS:localhost,IP:127.0.0.1,IP:$api"
certificate etcd/ca apiserver-etcd-client /O=system:masters/CN=kube-apiserver-etcd-client clientAuth ""
certificate etcd/ca etcd/healthcheck-client /O=system:masters/CN=kube-etcd-healthcheck-client clientAuth ""
certificate ca admin /O=system:masters/CN=kubernetes-admin clientAuth ""
certificate ca controller-manager /CN=system:kube-controller-manager clientAuth ""
certificate ca scheduler /CN=system:kube-scheduler clientAuth ""
certificate ca kube-proxy /CN=system:kube-proxy clientAuth ""
kubeconfig ../admin.conf kubernetes-admin admin
kubeconfig ../controller-manager.conf system:kube-controller-manager controller-manager
kubeconfig ../scheduler.conf system:kube-scheduler scheduler
kubeconfig kube-proxy.conf system:kube-proxy kube-proxy
for pair in "$@"; do
  node=${pair%%=*} address=${pair#*=}
  certificate ca "nodes/$node" "/O=system:nodes/CN=system:node:$node" clientAuth,serverAuth \
    "DNS:$node,IP:$address,IP:127.0.0.1"
  kubeconfig "nodes/$node.conf" "system:node:$node" "nodes/$node"
  [ -e "nodes/$node.tar" ] && [ "nodes/$node.tar" -nt "nodes/$node.conf" ] && continue
  rm -rf pack
  mkdir -p pack/pki
  # Unpacked on the control plane node it is the folder that etcd reads its own certificates in.
  chmod 0755 pack/pki
  cp ca.crt pack/pki/ca.crt
  cp "nodes/$node.crt" pack/pki/kubelet.crt
  cp "nodes/$node.key" pack/pki/kubelet.key
  cp "nodes/$node.conf" pack/kubelet.conf
  cp kube-proxy.conf pack/kube-proxy.conf
  tar -C pack -cf "nodes/$node.tar" pki kubelet.conf kube-proxy.conf
  rm -rf pack
done
