variable "alarm_emails" {
  description = "Addresses subscribed to the alarm topic; each must confirm the subscription."
  type        = list(string)
  default     = []
}

variable "autoscaling_max_capacity" {
  description = "Most instances the endpoint may scale out to."
  type        = number

  validation {
    condition     = var.autoscaling_max_capacity >= var.autoscaling_min_capacity
    error_message = "autoscaling_max_capacity (${var.autoscaling_max_capacity}) is below autoscaling_min_capacity (${var.autoscaling_min_capacity}): raise the maximum or lower the minimum."
  }
}

variable "autoscaling_min_capacity" {
  description = "Fewest instances of the endpoint; also the number it starts with."
  type        = number

  validation {
    condition     = var.autoscaling_min_capacity >= 1 && floor(var.autoscaling_min_capacity) == var.autoscaling_min_capacity
    error_message = "autoscaling_min_capacity is ${var.autoscaling_min_capacity}: a real-time endpoint keeps a whole number of instances, at least 1."
  }
}

variable "autoscaling_scale_in_cooldown_seconds" {
  description = "Seconds after a scale-in before the next."
  type        = number
}

variable "autoscaling_scale_out_cooldown_seconds" {
  description = "Seconds after a scale-out before the next."
  type        = number
}

variable "autoscaling_scheduled_actions" {
  description = "Times at which the endpoint gets another minimum and maximum of instances, which hold until the next of them: by name, a schedule as AWS writes it, at(2026-12-24T18:00:00) or cron(0 20 ? * MON-FRI *), in a time zone, and the two numbers."
  type = map(object({
    schedule     = string
    timezone     = optional(string, "UTC")
    min_capacity = number
    max_capacity = number
  }))
  default = {}
}

variable "autoscaling_target_invocations_per_minute" {
  description = "Invocations per instance and minute that target tracking holds."
  type        = number
}

variable "container_environment" {
  description = "Environment variables of the endpoint's containers, such as the workers and threads that `python -m bench.tune` writes (model/container/serve.py lists them)."
  type        = map(string)
  default     = {}
}

variable "create_autoscaling_service_linked_role" {
  description = "Whether to make AWSServiceRoleForAutoScaling, which the key's policy names; true in an account that never had an Auto Scaling group."
  type        = bool
  default     = false
}

variable "endpoint_instance_type" {
  description = "Instance type of the endpoint; burstable ml.t types cannot scale."
  type        = string
}

variable "environment" {
  description = "local, development or prod. Buckets can be destroyed with their content only outside prod."
  type        = string
  default     = "development"

  validation {
    condition     = contains(["local", "development", "prod"], var.environment)
    error_message = "environment is \"${var.environment}\": use local, development or prod."
  }
}

variable "image_uri" {
  description = "Hosting image: the project's own, by its digest, as `make image` or the build in the account prints it; null takes AWS's prebuilt PyTorch inference image."
  type        = string
  default     = null
}

variable "interface_endpoints" {
  description = "Whether AWS APIs are reached through interface endpoints inside the VPC; without them the NAT gateway serves."
  type        = bool
  default     = true
}

variable "lambda_package_path" {
  description = "The Lambda's zip, written by `make package`; relative to this directory."
  type        = string
  default     = "../build/lambda.zip"
}

variable "lambda_provisioned_concurrency" {
  description = "Execution environments kept warm on the alias; counts inside the reserved concurrency."
  type        = number
}

variable "lambda_reserved_concurrency" {
  description = "Concurrent executions reserved for the function; null in a new account, whose quota of 10 leaves nothing to reserve."
  type        = number
  nullable    = true
}

variable "log_retention_days" {
  description = "Days every log group keeps its events; a value CloudWatch Logs knows."
  type        = number
  default     = 365

  validation {
    condition = contains(
      [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653],
      var.log_retention_days
    )
    error_message = "log_retention_days is ${var.log_retention_days}: CloudWatch Logs knows 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 and 3653."
  }
}

variable "name" {
  description = "Prefix of every name; roles, endpoint and function are called by it, so that their ARNs are known before they exist."
  type        = string
  default     = "image-classifier"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,21}[a-z0-9]$", var.name))
    error_message = "name is \"${var.name}\": use 3 to 23 lower-case letters, digits and hyphens, beginning with a letter (the bucket's name is made of it)."
  }
}

variable "network" {
  description = "A network of your own (two subnets of each kind, with a way to the AWS APIs; the Lambda's also to the internet); null makes one."
  type = object({
    vpc_id              = string
    workload_subnet_ids = list(string)
    lambda_subnet_ids   = list(string)
  })
  default = null

  validation {
    condition     = var.network == null ? true : length(var.network.workload_subnet_ids) >= 2 && length(var.network.lambda_subnet_ids) >= 2
    error_message = "network needs at least two workload_subnet_ids and two lambda_subnet_ids, in different availability zones."
  }
}

variable "notebook_instance_type" {
  description = "Instance type of the notebook that runs the submission script."
  type        = string
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary put on every role; null for none."
  type        = string
  default     = null
}

variable "prebuilt_image_tag" {
  description = "Tag of AWS's prebuilt PyTorch inference image, used where image_uri is null."
  type        = string
  default     = "2.6.0-cpu-py312-ubuntu22.04-sagemaker"
}

variable "private_hosts" {
  description = "Picture hosts inside the VPC that the Lambda may fetch from: name, TCP port, and the network all their addresses lie in."
  type = list(object({
    cidr = string
    host = string
    port = number
  }))
  default = []
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-1"
}

variable "release_key" {
  description = "The archive to serve: its content-addressed key in the artifact bucket, as model/publish.py prints it. Null: no endpoint, and nothing that hangs on one."
  type        = string
  default     = null

  validation {
    condition     = var.release_key == null ? true : can(regex("^releases/[0-9a-f]{64}/model\\.tar\\.gz$", var.release_key))
    error_message = "release_key is not of the form releases/<sha256>/model.tar.gz: take the last line that model/publish.py printed."
  }
}

variable "sagemaker_log_groups" {
  description = "Whether to own the account-wide SageMaker log groups (jobs, notebooks); they can exist once per account and region."
  type        = bool
  default     = false
}

variable "trainer_code_path" {
  description = "The training code's archive, written by `make package`; relative to this directory."
  type        = string
  default     = "../build/trainer-code.tar.gz"
}

variable "trainer_cost_cap_usd" {
  description = "US dollars after which the EC2 trainer takes itself away, finished or not, over all boxes of one training; null for the time cap alone. Needs trainer_usd_per_hour."
  type        = number
  default     = null

  validation {
    condition     = var.trainer_cost_cap_usd == null || var.trainer_usd_per_hour != null
    error_message = "trainer_cost_cap_usd needs the price of an hour: set trainer_usd_per_hour to that of ${var.trainer_instance_type} in ${var.region}, or leave the cost cap out."
  }

  validation {
    condition     = var.trainer_cost_cap_usd == null || var.trainer_usd_per_hour == null ? true : var.trainer_cost_cap_usd / var.trainer_usd_per_hour * 3600 >= 60
    error_message = "trainer_cost_cap_usd is ${coalesce(var.trainer_cost_cap_usd, 0)}, which at trainer_usd_per_hour (${coalesce(var.trainer_usd_per_hour, 0)}) buys less than 60 seconds: raise it, a box needs that to train anything."
  }
}

variable "trainer_dataset" {
  description = "The data set the EC2 trainer takes: its name below datasets/ in the artifact bucket, as given to model/submit.py."
  type        = string
  default     = "dogs"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", var.trainer_dataset))
    error_message = "trainer_dataset is \"${var.trainer_dataset}\": use letters, digits, dot, underscore and hyphen, 63 at most."
  }
}

variable "trainer_hyperparameters" {
  description = "Arguments of model/train.py, by flag name without dashes, written into the EC2 trainer's user-data."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([
      for flag, value in var.trainer_hyperparameters :
      can(regex("^[a-z][a-z0-9-]*$", flag)) && !can(regex("[\\x00-\\x1f\\x7f-\\x{9f}]", value))
    ])
    error_message = "trainer_hyperparameters: a flag is named in lower-case letters, digits and hyphens, as in {\"batch-size\" = \"32\"}, and its value has no control characters."
  }
}

variable "trainer_image_parameter" {
  description = "Public SSM parameter that names the EC2 trainer's machine image (Debian or Ubuntu, x86-64)."
  type        = string
  default     = "/aws/service/debian/release/12/latest/amd64"
}

variable "trainer_instance_type" {
  description = "Instance type of the EC2 trainer."
  type        = string
}

variable "trainer_spot" {
  description = "Whether the EC2 trainer runs on spot capacity, for about a third of the price; a box that EC2 takes back is replaced and goes on from its last checkpoint."
  type        = bool
  default     = false
}

variable "trainer_time_cap_seconds" {
  description = "Seconds after which the EC2 trainer takes itself away, finished or not, over all boxes of one training: the bound on its cost."
  type        = number
  default     = 14400

  validation {
    condition     = var.trainer_time_cap_seconds >= 60
    error_message = "trainer_time_cap_seconds is ${var.trainer_time_cap_seconds}: a box needs at least 60 seconds to train anything."
  }
}

variable "trainer_usd_per_hour" {
  description = "Price of an hour of trainer_instance_type in US dollars, for the cost cap and the report of a run; null where neither is wanted."
  type        = number
  default     = null

  validation {
    condition     = var.trainer_usd_per_hour == null ? true : var.trainer_usd_per_hour > 0
    error_message = "trainer_usd_per_hour is ${coalesce(var.trainer_usd_per_hour, 0)}: give the price of an hour, such as 0.384."
  }
}

variable "training_image_uri" {
  description = "Image of SageMaker training jobs; null takes AWS's PyTorch training image of the region."
  type        = string
  default     = null
}

variable "training_image_tag" {
  description = "Tag of AWS's PyTorch training image, used where training_image_uri is null."
  type        = string
  default     = "2.10.0-cpu-py313-ubuntu22.04-sagemaker"
}

variable "training_instance_type" {
  description = "Instance type of SageMaker training jobs."
  type        = string
}

variable "vpc_cidr" {
  description = "Address range of the network made here; unused with a network of your own."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 4, 0))
    error_message = "vpc_cidr \"${var.vpc_cidr}\" is not an IPv4 range that can be cut into sixteen subnets, such as 10.20.0.0/16."
  }
}
