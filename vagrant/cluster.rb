# Defines one virtual machine for each node of a cluster. The data is the file that DEEPOPS_INSTANCE names;
# `deepops-virtual up` writes it from vagrant/clusters/NAME.yml (names, subnet and accelerator chosen) and sets the variable.
# The Vagrantfiles beside this file load it; what differs from one distribution to another they hand over.
require "json"

module DeepopsCluster
  # Returns the cluster's data; ends Vagrant with a sentence where there is none.
  def self.data
    path = ENV["DEEPOPS_INSTANCE"]
    if path.nil? || !File.file?(path)
      abort "DEEPOPS_INSTANCE does not name a cluster's data file.\n" \
            "Next: bring a cluster up with 'deepops-virtual up', then 'eval \"$(deepops-virtual env NAME)\"'."
    end
    JSON.parse(File.read(path))
  end

  # guest: Vagrant's name of the guests' system.
  def self.define(guest:)
    cluster = data
    Vagrant.configure("2") do |config|
      config.vm.box = cluster["box"]
      config.vm.box_version = cluster["box_version"] if cluster["box_version"]
      config.vm.box_check_update = false
      # Said here, Vagrant need not try one distribution's test after the other over ssh: 25 s on an emulated guest.
      config.vm.guest = guest
      config.vm.synced_folder ".", "/vagrant", disabled: true
      config.vm.allow_fstab_modification = false
      config.vm.allow_hosts_modification = false
      config.vm.boot_timeout = cluster["boot_timeout"]
      config.ssh.insert_key = false
      # The first connection finds the box's public key; vagrant/identity.sh then leaves the cluster's own key alone in place.
      config.ssh.private_key_path = [cluster["private_key"], cluster["first_key"]]
      config.ssh.keep_alive = true

      cluster["nodes"].each do |node|
        config.vm.define node["name"] do |machine|
          machine.vm.network :private_network,
            ip: node["address"], libvirt__netmask: cluster["netmask"], libvirt__network_name: cluster["network"],
            libvirt__forward_mode: "none", libvirt__dhcp_enabled: false, auto_config: false

          machine.vm.provider :libvirt do |v|
            v.driver = cluster["accelerator"] == "kvm" ? "kvm" : "qemu"
            if cluster["accelerator"] == "kvm"
              v.cpu_mode = "host-passthrough"
            else
              # x86-64-v2 and no more: with AVX on offer, the C library uses it everywhere, and emulating that costs a third.
              v.cpu_mode = "custom"
              v.cpu_model = "Nehalem"
              v.cpu_fallback = "allow"
            end
            v.default_prefix = cluster["domain_prefix"]
            v.title = "DeepOps Virtual #{cluster["name"]}: #{node["name"]}"
            v.cpus = node["cpus"]
            v.memory = node["memory"]
            v.machine_virtual_size = node["disk"]
            v.machine_type = "q35"
            v.disk_driver :cache => "unsafe", :discard => "unmap"
            v.graphics_type = "none"
            v.video_type = "none" if Gem.loaded_specs["vagrant-libvirt"].version >= Gem::Version.new("0.8")
            v.memballoon_enabled = false
            v.random :model => "random"
            # The plugin knows no `append` and writes the path into the domain's XML as it is. Without `append`
            # virtlogd replaces the console file by one that root alone can read.
            v.serial :type => "file", :source => { :path => "#{node["console"]}' append='on" }
            # Addresses of this host's devices, leased for this node; libvirt moves them to vfio-pci and back again.
            (node["pci"] || []).each do |device|
              v.pci :domain => device["domain"], :bus => device["bus"], :slot => device["slot"], :function => device["function"]
            end
            v.kvm_hidden = true if cluster["hide_kvm"] && !(node["pci"] || []).empty?
            v.management_network_name = cluster["management_network"]
            v.management_network_address = cluster["management_subnet"]
            v.storage_pool_name = cluster["pool"]
          end
        end
      end
    end
  end
end
