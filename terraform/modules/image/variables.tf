variable "artifact_bucket" {
  description = "Bucket that holds the source archive, image/source.zip; versioned, because a build names the version it takes."
  type        = string
}

variable "build_image" {
  description = "CodeBuild's image that the build runs in; with docker, Python 3 and the AWS CLI."
  type        = string
  default     = "aws/codebuild/amazonlinux-x86_64-standard:5.0"

  validation {
    condition     = startswith(var.build_image, "aws/codebuild/")
    error_message = "build_image is \"${var.build_image}\": use an image that CodeBuild provides, such as aws/codebuild/amazonlinux-x86_64-standard:5.0."
  }
}

variable "force_delete" {
  description = "Whether a destroy takes the repository together with its images."
  type        = bool
  default     = false
}

variable "kept_images" {
  description = "Newest images the repository keeps. An endpoint that scales out pulls its image again: keep more than the releases you go back to."
  type        = number
  default     = 30

  validation {
    condition     = var.kept_images >= 2 && floor(var.kept_images) == var.kept_images
    error_message = "kept_images is ${var.kept_images}: keep a whole number of images, at least 2, or a rollback finds none."
  }
}

variable "kms_key_arn" {
  description = "Key of the repository, the build and its log group."
  type        = string
}

variable "log_retention_days" {
  description = "Days the log group keeps its events; a value CloudWatch Logs knows."
  type        = number
  default     = 365
}

variable "name" {
  description = "Prefix of every name; repository and project are <name>-hosting, the log group is /<name>/builder."
  type        = string
}

variable "role_arn" {
  description = "Role of the build: reads image/source.zip, pushes to the repository, writes its log."
  type        = string
}
