# The composition: one module call a system. Arrows point one way: names -> roles -> key and buckets -> network ->
# what computes -> what watches.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

# AWS's images, by region, where none of one's own is named.
data "aws_sagemaker_prebuilt_ecr_image" "inference" {
  repository_name = "pytorch-inference"
  image_tag       = var.prebuilt_image_tag
}

data "aws_sagemaker_prebuilt_ecr_image" "training" {
  repository_name = "pytorch-training"
  image_tag       = var.training_image_tag
}

locals {
  account_id      = data.aws_caller_identity.current.account_id
  partition       = data.aws_partition.current.partition
  artifact_bucket = "${var.name}-${local.account_id}-${var.region}-artifacts"
  released        = var.release_key != null

  image_uri          = coalesce(var.image_uri, data.aws_sagemaker_prebuilt_ecr_image.inference.registry_path)
  training_image_uri = coalesce(var.training_image_uri, data.aws_sagemaker_prebuilt_ecr_image.training.registry_path)

  vpc_id              = var.network == null ? module.network[0].vpc_id : var.network.vpc_id
  workload_subnet_ids = var.network == null ? module.network[0].workload_subnet_ids : var.network.workload_subnet_ids
  lambda_subnet_ids   = var.network == null ? module.network[0].lambda_subnet_ids : var.network.lambda_subnet_ids

  code_sha256 = filesha256("${path.root}/${var.trainer_code_path}")
  code_key    = "code/${local.code_sha256}.tar.gz"

  # A run of the EC2 trainer: its checkpoints are for this code, data set and hyperparameters, on whichever box.
  trainer_run_id = substr(sha256(jsonencode([local.code_sha256, var.trainer_dataset, var.trainer_hyperparameters])), 0, 16)

  # What the money buys, where that is less than the time.
  trainer_cap_seconds = floor(min(
    var.trainer_time_cap_seconds,
    var.trainer_cost_cap_usd == null || var.trainer_usd_per_hour == null ? var.trainer_time_cap_seconds : var.trainer_cost_cap_usd / var.trainer_usd_per_hour * 3600
  ))

  # What model/submit.py needs to know of this stack; the notebook gets it as submission.json.
  submission = {
    bucket             = module.storage.artifact_bucket
    code_key           = local.code_key
    image_uri          = local.training_image_uri
    instance_type      = var.training_instance_type
    kms_key_arn        = module.storage.kms_key_arn
    name               = var.name
    region             = var.region
    role_arn           = module.iam.role_arns["training"]
    security_group_ids = [module.firewall.security_group_ids["training"]]
    subnet_ids         = local.workload_subnet_ids
  }
}

module "iam" {
  source = "./modules/iam"

  account_id               = local.account_id
  artifact_bucket          = local.artifact_bucket
  hosting_image_uri        = local.image_uri
  name                     = var.name
  partition                = local.partition
  permissions_boundary_arn = var.permissions_boundary_arn
  region                   = var.region
  training_image_uri       = local.training_image_uri
}

module "storage" {
  source = "./modules/storage"

  account_id                             = local.account_id
  create_autoscaling_service_linked_role = var.create_autoscaling_service_linked_role
  environment                            = var.environment
  name                                   = var.name
  partition                              = local.partition
  region                                 = var.region
  role_arns                              = module.iam.role_arns
}

module "network" {
  source = "./modules/network"
  count  = var.network == null ? 1 : 0

  artifact_bucket_arn = module.storage.artifact_bucket_arn
  flow_log_role_arn   = module.iam.role_arns["flow_logs"]
  interface_endpoints = var.interface_endpoints
  kms_key_arn         = module.storage.kms_key_arn
  log_retention_days  = var.log_retention_days
  name                = var.name
  region              = var.region
  vpc_cidr            = var.vpc_cidr
}

module "firewall" {
  source = "./modules/firewall"

  name          = var.name
  private_hosts = var.private_hosts
  vpc_id        = local.vpc_id
}

module "image" {
  source = "./modules/image"

  artifact_bucket    = module.storage.artifact_bucket
  force_delete       = var.environment != "prod"
  kms_key_arn        = module.storage.kms_key_arn
  log_retention_days = var.log_retention_days
  name               = var.name
  role_arn           = module.iam.role_arns["builder"]
}

# The code of the EC2 trainer and the notebook, by hash: what runs is what was planned.
resource "aws_s3_object" "code" {
  bucket = module.storage.artifact_bucket
  key    = local.code_key
  source = "${path.root}/${var.trainer_code_path}"
}

module "trainer" {
  source = "./modules/trainer"

  image_parameter    = var.trainer_image_parameter
  instance_profile   = module.iam.trainer_instance_profile
  instance_type      = var.trainer_instance_type
  kms_key_arn        = module.storage.kms_key_arn
  log_retention_days = var.log_retention_days
  name               = var.name
  security_group_id  = module.firewall.security_group_ids["trainer"]
  spot               = var.trainer_spot
  subnet_ids         = local.workload_subnet_ids

  user_data = templatefile("${path.root}/../ec2_userdata/user-data.yaml.tftpl", {
    bucket      = module.storage.artifact_bucket
    code_key    = aws_s3_object.code.key
    code_sha256 = local.code_sha256
    dataset     = var.trainer_dataset
    # The price is for the run's report.
    hyperparameters  = merge(var.trainer_usd_per_hour == null ? {} : { usd-per-hour = var.trainer_usd_per_hour }, var.trainer_hyperparameters)
    kms_key_arn      = module.storage.kms_key_arn
    log_group_name   = "/${var.name}/trainer"
    name             = var.name
    region           = var.region
    run_id           = local.trainer_run_id
    time_cap_seconds = local.trainer_cap_seconds
  })
}

module "notebook" {
  source = "./modules/notebook"

  code_bucket       = module.storage.artifact_bucket
  code_key          = aws_s3_object.code.key
  code_sha256       = local.code_sha256
  instance_type     = var.notebook_instance_type
  kms_key_arn       = module.storage.kms_key_arn
  name              = var.name
  role_arn          = module.iam.role_arns["notebook"]
  security_group_id = module.firewall.security_group_ids["notebook"]
  submission        = local.submission
  subnet_id         = local.workload_subnet_ids[0]
}

# Before the endpoint: a deployment watches these alarms and rolls back on them.
module "monitoring" {
  source = "./modules/monitoring"

  account_id              = local.account_id
  alarm_emails            = var.alarm_emails
  dead_letter_queue_name  = local.released ? module.lambda[0].dead_letter_queue_name : null
  endpoint_name           = local.released ? var.name : null
  function_log_group_name = local.released ? module.lambda[0].log_group_name : null
  function_name           = local.released ? module.lambda[0].function_name : null
  kms_key_arn             = module.storage.kms_key_arn
  log_retention_days      = var.log_retention_days
  name                    = var.name
  partition               = local.partition
  region                  = var.region
  sagemaker_log_groups    = var.sagemaker_log_groups
}

module "endpoint" {
  source = "./modules/endpoint"
  count  = local.released ? 1 : 0

  container_environment = var.container_environment
  image_uri             = local.image_uri
  instance_count        = var.autoscaling_min_capacity
  instance_type         = var.endpoint_instance_type
  kms_key_arn           = module.storage.kms_key_arn
  model_data_url        = local.released ? "s3://${module.storage.artifact_bucket}/${var.release_key}" : ""
  name                  = var.name
  role_arn              = module.iam.role_arns["hosting"]
  rollback_alarm_names  = module.monitoring.endpoint_alarm_names
  security_group_id     = module.firewall.security_group_ids["hosting"]
  subnet_ids            = local.workload_subnet_ids
}

module "autoscaling" {
  source = "./modules/autoscaling"
  count  = local.released ? 1 : 0

  endpoint_arn                  = module.endpoint[0].arn
  endpoint_name                 = module.endpoint[0].name
  instance_type                 = var.endpoint_instance_type
  max_capacity                  = var.autoscaling_max_capacity
  min_capacity                  = var.autoscaling_min_capacity
  scale_in_cooldown_seconds     = var.autoscaling_scale_in_cooldown_seconds
  scale_out_cooldown_seconds    = var.autoscaling_scale_out_cooldown_seconds
  scheduled_actions             = var.autoscaling_scheduled_actions
  target_invocations_per_minute = var.autoscaling_target_invocations_per_minute
  variant_name                  = module.endpoint[0].variant_name
}

module "lambda" {
  source = "./modules/lambda"
  count  = local.released ? 1 : 0

  account_id              = local.account_id
  endpoint_name           = var.name
  kms_key_arn             = module.storage.kms_key_arn
  log_retention_days      = var.log_retention_days
  name                    = var.name
  package_path            = "${path.root}/${var.lambda_package_path}"
  partition               = local.partition
  private_hosts           = var.private_hosts
  provisioned_concurrency = var.lambda_provisioned_concurrency
  region                  = var.region
  reserved_concurrency    = var.lambda_reserved_concurrency
  role_arn                = module.iam.role_arns["lambda"]
  security_group_id       = module.firewall.security_group_ids["lambda"]
  subnet_ids              = local.lambda_subnet_ids
}
