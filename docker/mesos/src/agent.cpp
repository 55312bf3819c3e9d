// mesos-agent: one agent, starting its executors through mesos-containerizer and mesos-fetcher beside it.
#include <filesystem>

#include "program.hpp"

using namespace mesos;
using mesos::internal::Files;
using mesos::master::detector::MasterDetector;
using std::string;
namespace agent = mesos::internal::slave;

namespace {
// The first process of this name, as in Mesos's own main: requests to `/` reach it, which pymesos relies on.
const string kId = "slave(1)";
const string kRealm = "mesos-agent";

void createDirectory(const Values& values, const string& flag) {
  string path = values.required(flag);
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail("cannot create --" + flag + " " + path + ": " + error.message());
}

// Without it a request for /containerizer/debug would crash the agent.
internal::PendingFutureTracker* futureTracker() {
  auto* process = make<internal::PendingFutureTrackerProcess>();
  keep([&] { return process::spawn(&upcast<process::ProcessBase>(process), false); });
  return new internal::PendingFutureTracker{process::Owned<internal::PendingFutureTrackerProcess>(process)};
}
}  // namespace

int main(int argc, char** argv) {
  auto* flags = make<agent::Flags>();
  const char *noTls = "it needs OpenSSL 1.0", *notPackaged = "it is not in the packaged library";
  Values values(upcast<::flags::FlagsBase>(flags), argc, argv,
                {{"firewall_rules", notPackaged},
                 {"csi_plugin_config_dir", notPackaged},
                 {"http_executor_domain_sockets", notPackaged},
                 {"http_command_executor", notPackaged},
                 {"jwt_secret_key", noTls},
                 {"authenticate_http_executors", noTls}});
  Option<string> master = values.get("master"), module = values.get("master_detector");
  if (master.some() == module.some()) fail("one of --master and --master_detector is required (see --help)");
  createDirectory(values, "work_dir");
  createDirectory(values, "runtime_dir");
  startLibprocess(argv[0], values, upcast<internal::logging::Flags>(flags), kId, kRealm);

  auto* fetcher = make<agent::Fetcher>(*flags);
  auto* collector = make<agent::GarbageCollector>(values.required("work_dir"));
  auto* secrets = orFail(SecretResolver::create(values.get("secret_resolver")), "--secret_resolver");
  agent::VolumeGidManager* gids = nullptr;
  if (values.get("volume_gid_range").some()) gids = orFail(agent::VolumeGidManager::create(*flags), "--volume_gid_range");
  auto* tracker = futureTracker();
  auto* containerizer = orFail(
      agent::Containerizer::create(*flags, false, fetcher, collector, secrets, gids, tracker, nullptr),
      "cannot create a containerizer");
  MasterDetector* detector =
      orFail(MasterDetector::create(master, module, values.duration("zk_session_timeout")), "--master");
  auto* estimator = orFail(mesos::slave::ResourceEstimator::create(values.get("resource_estimator")), "--resource_estimator");
  auto* qos = orFail(mesos::slave::QoSController::create(values.get("qos_controller")), "--qos_controller");
  Option<Authorizer*> authorizer_ = authorizer(values, "authorizer");
  auto* slave = make<agent::Slave>(
      kId, *flags, detector, containerizer, make<Files>(kRealm + "-readonly", authorizer_), collector,
      make<agent::TaskStatusUpdateManager>(*flags), estimator, qos, nullptr, gids, tracker,
      process::Owned<agent::CSIServer>(),
      Option<process::network::internal::Socket<process::network::unix::Address>>(), authorizer_);
  run(upcast<process::ProcessBase>(slave));
}
