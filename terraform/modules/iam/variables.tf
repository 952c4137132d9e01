variable "account_id" {
  description = "AWS account, twelve digits."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id is \"${var.account_id}\": give the twelve digits of the AWS account."
  }
}

variable "artifact_bucket" {
  description = "Name of the artifact bucket, which may not exist yet."
  type        = string
}

variable "hosting_image_uri" {
  description = "ECR image the endpoint runs, so that the hosting role may pull this repository and no other; null for any repository of the region."
  type        = string
  default     = null

  validation {
    condition     = var.hosting_image_uri == null ? true : can(regex("^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com", var.hosting_image_uri))
    error_message = "hosting_image_uri is \"${coalesce(var.hosting_image_uri, "null")}\": SageMaker runs images from ECR; give <account>.dkr.ecr.<region>.amazonaws.com/<repository>:<tag>."
  }
}

variable "name" {
  description = "Prefix of every name the policies are built from: roles, jobs, endpoint, function, queue, log groups."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,21}[a-z0-9]$", var.name))
    error_message = "name is \"${var.name}\": use 3 to 23 lower-case letters, digits and hyphens, beginning with a letter; anything else could widen a policy's pattern."
  }
}

variable "partition" {
  description = "AWS partition: aws, aws-cn or aws-us-gov."
  type        = string
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary put on every role; null for none."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null ? true : can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn is \"${coalesce(var.permissions_boundary_arn, "null")}\": give the ARN of an IAM managed policy, such as arn:aws:iam::<account>:policy/<name>."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "training_image_uri" {
  description = "ECR image of training jobs, so that the training role may pull this repository and no other; null for any repository of the region."
  type        = string
  default     = null

  validation {
    condition     = var.training_image_uri == null ? true : can(regex("^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com", var.training_image_uri))
    error_message = "training_image_uri is \"${coalesce(var.training_image_uri, "null")}\": SageMaker runs images from ECR; give <account>.dkr.ecr.<region>.amazonaws.com/<repository>:<tag>."
  }
}
