"""A client that nobody here wrote (pyVmomi) goes through the life of a VM on a state-only host."""
import hashlib
import json
import ssl
import sys
import urllib.parse
import urllib.request

from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

host, port, credentials = sys.argv[1], int(sys.argv[2]), json.load(open(sys.argv[3]))
context = ssl._create_unverified_context()
try:
    SmartConnect(host=host, port=port, user="root", pwd="wrong", sslContext=context)
    raise AssertionError("a wrong password was taken")
except vim.fault.InvalidLogin:
    pass
si = SmartConnect(host=host, port=port, user=credentials["user"], pwd=credentials["password"], sslContext=context)
content = si.RetrieveContent()
assert content.about.apiType == "HostAgent" and content.about.vendor == "VMware, Inc."
assert si.CurrentTime().year >= 2020
assert content.sessionManager.currentSession.userName == credentials["user"]
dc = content.rootFolder.childEntity[0]
assert isinstance(dc, vim.Datacenter) and dc.name == "ha-datacenter"
compute = dc.hostFolder.childEntity[0]
pool = compute.resourcePool
datastore = dc.datastore[0]
assert datastore.summary.name == "datastore1" and datastore.summary.freeSpace > 0
assert compute.host[0].summary.hardware.memorySize > 0
network = [n for n in dc.network if n.name == "VM Network"][0]
assert any(o.key == "mooring.disk.upload" and o.value is True for o in content.setting.QueryOptions("mooring."))
groups = compute.host[0].config.network.portgroup
assert [(g.spec.name, g.spec.vlanId, g.spec.vswitchName) for g in groups] == [("VM Network", 0, "vSwitch0")], groups
assert compute.host[0].configManager.networkSystem.networkInfo.vswitch[0].name == "vSwitch0"

# Create.
files, devices = vim.vm.FileInfo(vmPathName="[datastore1]"), []
def add(device, create=False):
    spec = vim.vm.device.VirtualDeviceSpec(operation="add", device=device)
    if create:
        spec.fileOperation = "create"
    devices.append(spec)
add(vim.vm.device.ParaVirtualSCSIController(key=-1, busNumber=0, sharedBus="noSharing"))
add(vim.vm.device.VirtualDisk(
    key=-2, controllerKey=-1, unitNumber=0, capacityInKB=1 << 20,
    backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName="", diskMode="persistent", thinProvisioned=True)), True)
add(vim.vm.device.VirtualVmxnet3(
    key=-3, backing=vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName="VM Network", network=network)))
spec = vim.vm.ConfigSpec(name="py <&> vm", memoryMB=256, numCPUs=1, guestId="otherLinux64Guest", files=files,
                         deviceChange=devices, extraConfig=[vim.option.OptionValue(key="mooring.id", value="abc")])
task = dc.vmFolder.CreateVM_Task(config=spec, pool=pool)
WaitForTask(task, si=si)
assert task.info.state == "success"
vm = task.info.result
assert vm.name == "py <&> vm" and vm.config.hardware.memoryMB == 256
disk = [d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)][0]
assert disk.capacityInKB == 1 << 20 and disk.key == 2000, disk
card = [d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualVmxnet3)][0]
assert card.macAddress.startswith("00:50:56:")
try:
    WaitForTask(dc.vmFolder.CreateVM_Task(config=spec, pool=pool), si=si)
    raise AssertionError("a name was given twice")
except vim.fault.DuplicateName as fault:
    assert fault.name == "py <&> vm" and fault.object == vm

# Views, the collector, waiting.
view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
assert list(view.view) == [vm]
PC = vmodl.query.PropertyCollector
filter_spec = PC.FilterSpec(
    objectSet=[PC.ObjectSpec(obj=view, skip=True, selectSet=[PC.TraversalSpec(name="v", type=vim.view.ContainerView, path="view", skip=False)])],
    propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=["name", "runtime.powerState", "config.extraConfig"])])
result = content.propertyCollector.RetrievePropertiesEx([filter_spec], PC.RetrieveOptions())
values = {p.name: p.val for p in result.objects[0].propSet}
assert values["runtime.powerState"] == "poweredOff"
assert [(o.key, o.value) for o in values["config.extraConfig"]] == [("mooring.id", "abc")]
collector = content.propertyCollector.CreatePropertyCollector()
collector.CreateFilter(filter_spec, False)
first = collector.WaitForUpdatesEx("", PC.WaitOptions(maxWaitSeconds=60))
assert first.filterSet[0].objectSet[0].kind == "enter"
WaitForTask(vm.PowerOnVM_Task(), si=si)
version, seen = first.version, []
while "poweredOn" not in seen:
    update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=60))
    version = update.version
    seen += [c.val for f in update.filterSet for o in f.objectSet for c in o.changeSet if c.name == "runtime.powerState"]
assert collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=0)) is None or True
try:
    WaitForTask(vm.PowerOnVM_Task(), si=si)
    raise AssertionError("powered on twice")
except vim.fault.InvalidPowerState as fault:
    assert fault.existingState == "poweredOn"
WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key="run.time", value="1")])), si=si)
assert any(o.key == "run.time" for o in vm.config.extraConfig)
assert vm.summary.runtime.powerState == "poweredOn" and vm.summary.config.numVirtualDisks == 1
WaitForTask(vm.PowerOffVM_Task(), si=si)
assert not any(o.key == "run.time" for o in vm.config.extraConfig)
WaitForTask(vm.Rename_Task("renamed"), si=si)
assert content.searchIndex.FindByInventoryPath("ha-datacenter/vm/renamed") == vm
assert content.searchIndex.FindByUuid(None, vm.config.uuid, True, False) == vm
events = content.eventManager.QueryEvents(vim.event.EventFilterSpec(entity=vim.event.EventFilterSpec.ByEntity(entity=vm, recursion="self")))
assert any(isinstance(e, vim.event.VmPoweredOffEvent) and e.vm.vm == vm for e in events), events
assert content.eventManager.latestEvent is not None

# Files.
content.fileManager.MakeDirectory("[datastore1] up/load", dc, True)
url = f"https://{host}:{port}/folder/up/load/{urllib.parse.quote('a b.bin')}?dcPath=ha-datacenter&dsName=datastore1"
def http(method, url, body=None, headers={}):
    request = urllib.request.Request(url, data=body, method=method, headers={"Cookie": si._stub.cookie, **headers})
    return urllib.request.urlopen(request, context=context)
body = bytes(range(256)) * 5000
http("PUT", url, body)
assert hashlib.sha256(http("GET", url).read()).digest() == hashlib.sha256(body).digest()
assert http("GET", url, headers={"Range": "bytes=256-260"}).read() == bytes(range(5))
ticket = content.sessionManager.AcquireGenericServiceTicket(vim.SessionManager.HttpServiceRequestSpec(method="httpGet", url=url))
request = urllib.request.Request(url, headers={"Cookie": "vmware_cgi_ticket=" + ticket.id})
assert urllib.request.urlopen(request, context=context).read() == body
task = datastore.browser.SearchDatastoreSubFolders_Task("[datastore1]", vim.host.DatastoreBrowser.SearchSpec(matchPattern=["*.bin"]))
WaitForTask(task, si=si)
assert [f.path for r in task.info.result for f in r.file] == ["a b.bin"]
WaitForTask(content.virtualDiskManager.CreateVirtualDisk_Task(
    "[datastore1] up/d.vmdk", dc, vim.VirtualDiskManager.FileBackedVirtualDiskSpec(diskType="thin", adapterType="lsiLogic", capacityKb=2048)), si=si)
assert content.virtualDiskManager.QueryVirtualDiskUuid("[datastore1] up/d.vmdk", dc)
WaitForTask(content.fileManager.DeleteDatastoreFile_Task("[datastore1] up", dc), si=si)
try:
    WaitForTask(content.fileManager.DeleteDatastoreFile_Task("[datastore1] up", dc), si=si)
    raise AssertionError("deleted twice")
except vim.fault.FileNotFound as fault:
    assert fault.file == "[datastore1] up"
view.DestroyView()
WaitForTask(vm.Destroy_Task(), si=si)
try:
    vm.name
    raise AssertionError("the VM is still there")
except vmodl.fault.ManagedObjectNotFound:
    pass
Disconnect(si)
print("pyVmomi is content")
