variable "baking_seconds" {
  description = "How long the new instances serve under the alarms' watch before the old ones are released, in seconds. Longer than the alarms need to fire."
  type        = number
  default     = 300

  validation {
    condition     = var.baking_seconds >= 0 && var.baking_seconds <= 3600
    error_message = "baking_seconds is ${var.baking_seconds}; SageMaker accepts 0 to 3600 seconds."
  }
}

variable "container_environment" {
  description = "Environment variables of the inference container."
  type        = map(string)
  default     = {}
}

variable "deployment_timeout_seconds" {
  description = "Longest a deployment may take before SageMaker rolls it back, in seconds."
  type        = number
  default     = 3600

  validation {
    condition     = var.deployment_timeout_seconds >= 600 && var.deployment_timeout_seconds <= 14400
    error_message = "deployment_timeout_seconds is ${var.deployment_timeout_seconds}; SageMaker accepts 600 to 14400 seconds."
  }
}

variable "image_uri" {
  description = "URI of the inference container's image in ECR."
  type        = string
}

variable "instance_count" {
  description = "Instances a deployment starts with; autoscaling moves the number afterwards. From 2 on, a deployment begins with a canary."
  type        = number
  default     = 1

  validation {
    condition     = var.instance_count >= 1
    error_message = "instance_count is ${var.instance_count}; an endpoint needs at least 1 instance."
  }
}

variable "instance_type" {
  description = "SageMaker instance type, such as ml.m5.xlarge. Types with NVMe disks of their own (ml.g5, ml.m5d, ...) refuse a KMS key."
  type        = string

  validation {
    condition     = startswith(var.instance_type, "ml.")
    error_message = "instance_type is ${var.instance_type}; SageMaker's types begin with \"ml.\", such as ml.m5.xlarge."
  }
}

variable "kms_key_arn" {
  description = "ARN of the KMS key that encrypts the instances' volumes."
  type        = string
}

variable "model_data_url" {
  description = "S3 URI of the release's model.tar.gz."
  type        = string

  validation {
    condition     = can(regex("^s3://[^/]+/.+\\.tar\\.gz$", var.model_data_url))
    error_message = "model_data_url is ${var.model_data_url}; give the archive as s3://BUCKET/KEY.tar.gz."
  }
}

variable "name" {
  description = "Name of the endpoint, and prefix of its model and configurations."
  type        = string

  validation {
    # 63 characters in all; the configuration's generated suffix takes 27 of them.
    condition     = can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,35}$", var.name))
    error_message = "name is \"${var.name}\"; use at most 36 letters, digits and inner hyphens."
  }
}

variable "role_arn" {
  description = "ARN of the role the containers run under. It needs cloudwatch:DescribeAlarms, or SageMaker cannot roll back."
  type        = string
}

variable "rollback_alarm_names" {
  description = "CloudWatch alarms that roll a deployment back. They must exist before the endpoint."
  type        = list(string)

  validation {
    condition     = length(var.rollback_alarm_names) >= 1 && length(var.rollback_alarm_names) <= 10
    error_message = "rollback_alarm_names holds ${length(var.rollback_alarm_names)} names; SageMaker takes 1 to 10 alarms."
  }
}

variable "security_group_id" {
  description = "ID of the containers' security group."
  type        = string
}

variable "subnet_ids" {
  description = "IDs of the private subnets, in at least two availability zones."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids holds ${length(var.subnet_ids)} subnets; give at least two, in different availability zones."
  }
}

variable "variant_name" {
  description = "Name of the production variant."
  type        = string
  default     = "AllTraffic"
}
